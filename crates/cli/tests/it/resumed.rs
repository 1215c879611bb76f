//! What goes on in another process and what begins anew: states of training, answers of a teacher.

use super::trained::{TRAIN, halves, said};
use super::*;

fn arrays(folder: &Folder, name: &str) -> Vec<(String, Tensor)> {
    npz::read(&folder.path(name)).unwrap()
}

/// An npz whose samples stand the other way round, with labels as `label` says.
fn turned(folder: &Folder, from: &str, to: &str, label: impl Fn(i64) -> i64) {
    let all = arrays(folder, from);
    let (dims, data) = (all[0].1.dims().to_vec(), all[0].1.to_f32().unwrap());
    let rows: Vec<f32> = data.chunks(64).rev().flatten().copied().collect();
    let labels = all[1].1.to_i64().unwrap();
    let labels: Vec<i64> = labels.iter().rev().map(|&l| label(l)).collect();
    let x = Tensor::from_vec(&dims, rows).unwrap();
    let arrays = [
        ("image".into(), x),
        ("labels".into(), Tensor::vector(labels)),
    ];
    npz::write(&folder.path(to), &arrays, true).unwrap();
}

fn goes_on(folder: &Folder, words: &str) -> bool {
    let output = folder.run(&format!("{words} --force"));
    assert!(output.status.success(), "{words}: {}", said(&output));
    said(&output).contains("goes on at step")
}

#[test]
fn a_run_with_augmentation_goes_on_in_another_process() {
    let folder = Folder::new("augmented");
    halves(&folder);
    let words =
        format!("{TRAIN} -o out.onnx --epochs 1 --cache kept --augment flip --augment cutout=2");
    assert!(!goes_on(&folder, &words));
    assert!(goes_on(&folder, &words));
    assert!(!goes_on(&folder, &words.replace("cutout=2", "cutout=3")));
}

#[test]
fn a_run_with_another_setting_begins_anew() {
    let folder = Folder::new("other");
    halves(&folder);
    for name in ["train.npz", "test.npz"] {
        let mut two = arrays(&folder, name);
        let labels = two[1].1.to_i64().unwrap();
        let other: Vec<i64> = labels.iter().map(|l| 1 - l).collect();
        two.push(("other".into(), Tensor::vector(other)));
        npz::write(&folder.path(name), &two, true).unwrap();
    }
    turned(&folder, "test.npz", "test2.npz", |l| 1 - l);
    let words = format!("{TRAIN} --label labels -o out.onnx --epochs 1 --cache kept");
    assert!(!goes_on(&folder, &words));
    assert!(goes_on(&folder, &words), "nothing is changed");
    for (from, to) in [
        ("--label labels", "--label other"),
        ("--validate test.npz", "--validate test2.npz"),
        ("--validate test.npz", "--split 0.2"),
        ("--epochs 1", "--epochs 1 --dropout 0.2"),
        ("--epochs 1", "--epochs 1 --freeze *.bias"),
        ("--epochs 1", "--epochs 1 --freeze-norms"),
        ("--epochs 1", "--epochs 1 --label-smoothing 0.1"),
        ("--epochs 1", "--epochs 1 --patience 3"),
    ] {
        let changed = words.replace(from, to);
        assert_ne!(changed, words);
        assert!(!goes_on(&folder, &changed), "{to}");
    }
    std::fs::copy(folder.path("train.npz"), folder.path("moved.npz")).unwrap();
    let moved = words.replace("train.npz", "moved.npz");
    assert!(goes_on(&folder, &moved), "what is in a file counts");
    turned(&folder, "test.npz", "test.npz", |l| l);
    assert!(
        !goes_on(&folder, &words),
        "a file of the same name and size"
    );
}

#[test]
fn a_run_on_texts_begins_anew_with_other_words() {
    let folder = Folder::new("words");
    let row = |i: usize| format!("{},{}\n", ["good day", "bad day"][i % 2], i % 2);
    let rows: String = (0..32).map(row).collect();
    std::fs::write(folder.path("t.csv"), format!("text,label\n{rows}")).unwrap();
    let vocabulary = "[PAD]\n[UNK]\n[CLS]\n[SEP]\ngood\nbad\nday\n";
    std::fs::write(folder.path("vocab.txt"), vocabulary).unwrap();
    let words = "train encoder-2 --data t.csv --text text --tokenizer vocab.txt --tokens 8 -o out.onnx --epochs 1 \
                 --batch 16 --train-threads 1 --cache kept";
    assert!(!goes_on(&folder, words));
    assert!(goes_on(&folder, words));
    assert!(!goes_on(
        &folder,
        &words.replace("--tokens 8", "--tokens 9")
    ));
    let swapped = vocabulary.replace("good\nbad", "bad\ngood");
    std::fs::write(folder.path("vocab.txt"), swapped).unwrap();
    assert!(!goes_on(&folder, words), "the same file with other words");
}

#[test]
fn the_answers_of_a_teacher_go_with_their_samples() {
    let folder = Folder::new("answers");
    halves(&folder);
    let teacher = folder.run(&format!("{TRAIN} -o teacher.onnx --epochs 2"));
    assert!(teacher.status.success(), "{}", said(&teacher));
    turned(&folder, "train.npz", "turned.npz", |l| l);
    let words = "distill --teacher teacher.onnx --student lenet-300-100 --data train.npz --epochs 1 --batch 32 \
                 --train-threads 1 -o out.onnx --force";
    let made = |words: &str, cache: &str| {
        let output = folder.run(&format!("{words} --cache {cache}"));
        assert!(output.status.success(), "{}", said(&output));
        std::fs::read(folder.path("out.onnx")).unwrap()
    };
    // Samples that do not fill a batch are seen in a later epoch: 320 are 10 batches.
    made(words, "kept");
    for (i, (from, to)) in [
        ("train.npz", "turned.npz"),
        ("--epochs 1", "--epochs 1 --split 0.2 --train-seed 1"),
        ("--epochs 1", "--epochs 1 --split 0.2 --train-seed 2"),
        ("--epochs 1", "--epochs 2"),
    ]
    .into_iter()
    .enumerate()
    {
        let changed = words.replace(from, to);
        let fresh = made(&changed, &format!("fresh{i}"));
        assert!(made(&changed, "kept") == fresh, "{to}");
    }
}

#[test]
#[cfg(unix)]
fn ctrl_c_keeps_the_state() {
    let folder = Folder::new("interrupted");
    halves(&folder);
    let words = format!("{TRAIN} -o out.onnx --epochs 100000 --cache kept");
    let child = Command::new(env!("CARGO_BIN_EXE_edgesmith"))
        .args(words.split_whitespace())
        .current_dir(&folder.0)
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let states = || std::fs::read_dir(folder.path("kept")).map_or(0, Iterator::count);
    while states() == 0 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let pid = child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-INT", &pid])
            .status()
            .unwrap()
            .success()
    );
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", said(&output));
    assert!(
        said(&output).contains("the same command goes on"),
        "{}",
        said(&output)
    );
    assert!(!folder.path("out.onnx").exists());
}
