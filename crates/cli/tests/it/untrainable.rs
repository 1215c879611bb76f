//! Training that could come to nothing is refused before it begins, and what judges it is told.

use super::trained::{TRAIN, halves, said};
use super::*;

/// Arrays as those of train.npz, with other numbers or labels.
fn written(folder: &Folder, name: &str, change: impl Fn(&mut [f32], &mut [i64])) {
    let all = npz::read(&folder.path("train.npz")).unwrap();
    let mut data = all[0].1.to_f32().unwrap().into_owned();
    let mut labels = all[1].1.to_i64().unwrap().to_vec();
    change(&mut data, &mut labels);
    let x = Tensor::from_vec(all[0].1.dims(), data).unwrap();
    let arrays = [
        ("image".into(), x),
        ("labels".into(), Tensor::vector(labels)),
    ];
    npz::write(&folder.path(name), &arrays, false).unwrap();
}

fn prepared(test: &str) -> Folder {
    let folder = Folder::new(test);
    halves(&folder);
    written(&folder, "unknown.npz", |_, l| l.fill(-1));
    written(&folder, "single.npz", |_, l| l.fill(1));
    written(&folder, "far.npz", |_, l| l[5] = 7);
    written(&folder, "nan.npz", |x, _| x[5 * 64 + 3] = f32::NAN);
    let x = npz::read(&folder.path("train.npz")).unwrap().remove(0);
    npz::write(&folder.path("bare.npz"), &[x], false).unwrap();
    let made = folder.run(&format!("{TRAIN} -o net.onnx --epochs 1"));
    assert!(made.status.success(), "{}", said(&made));
    folder
}

#[test]
fn what_would_come_to_nothing_is_refused_before_it_begins() {
    let folder = prepared("nothing");
    let files = folder.files();
    for (words, what) in [
        ("train net.onnx --data bare.npz", "no example has a class"),
        (
            "train net.onnx --data unknown.npz",
            "no example has a class",
        ),
        ("train lenet-300-100 --data single.npz", "of one class"),
        (
            "train net.onnx --data nan.npz",
            "nan.npz: row 5 has the number NaN in \"image\"",
        ),
        (
            "train net.onnx --data train.npz --patience 2",
            "nothing says which epoch is better",
        ),
        (
            "train net.onnx --data train.npz --validate bare.npz",
            "have no classes",
        ),
        (
            "train net.onnx --data train.npz --validate far.npz",
            "example 5 has the label 7",
        ),
        (
            "train net.onnx --data train.npz --validate test.npz --split 0.2",
            "both say what to validate by",
        ),
        (
            "train net.onnx --data train.npz --freeze nothere*",
            "no parameter is called \"nothere*\"",
        ),
        (
            "train net.onnx --data train.npz --train-threads 100000",
            "100000 threads are too many",
        ),
        (
            "train net.onnx --data train.npz --rate nan",
            "\"rate\" is a number",
        ),
        (
            "train lenet-300-10 --data train.npz",
            "did you mean \"lenet-300-100\"",
        ),
        ("train zzzzzz --data train.npz", "lenet-300-100"),
    ] {
        let output = folder.run(&format!("{words} -o x.onnx"));
        assert!(
            matches!(output.status.code(), Some(1 | 2)),
            "{words}: {}",
            said(&output)
        );
        assert!(said(&output).contains(what), "{words}: {}", said(&output));
        assert!(
            !said(&output).contains("epoch   1"),
            "{words}: {}",
            said(&output)
        );
        assert_eq!(folder.files(), files, "{words}");
    }
    let with_loss = |loss: &str, rest: &str| {
        let loss = format!("--loss={loss}");
        let words = rest.split_whitespace().chain([loss.as_str()]);
        let output = Command::new(env!("CARGO_BIN_EXE_edgesmith"))
            .args(words)
            .current_dir(&folder.0)
            .output()
            .unwrap();
        assert!(!output.status.success(), "{loss}");
        said(&output)
    };
    let zero = with_loss(
        "cross-entropy 0",
        "train net.onnx --data train.npz -o x.onnx",
    );
    assert!(zero.contains("nothing would be learned"), "{zero}");
    let of = edgesmith_formats::read(&folder.path("net.onnx")).unwrap();
    let value = of.graph.value(of.graph.outputs[0]).name.clone();
    let alone = with_loss(
        &format!("rkd-distance 1 {value} : {value}"),
        "distill --teacher net.onnx --student net.onnx --data train.npz --batch 1 -o x.onnx",
    );
    assert!(alone.contains("compares examples of a batch"), "{alone}");
    assert_eq!(folder.files(), files);
}

#[test]
fn a_place_that_takes_no_file_is_refused_before_the_work() {
    let folder = prepared("places");
    std::fs::create_dir(folder.path("folder")).unwrap();
    for (words, what) in [
        ("-o nodir/x.onnx", "nodir/x.onnx: there is no folder nodir"),
        ("-o x.onnx --report nodir/r.html", "no folder nodir"),
        ("-o x.onnx --recipe nodir/r.toml", "no folder nodir"),
        ("-o folder --force", "it is a folder"),
    ] {
        let output = folder.run(&format!("{TRAIN} --epochs 1 {words}"));
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        assert!(said(&output).contains(what), "{}", said(&output));
        assert!(!said(&output).contains("epoch"), "{}", said(&output));
    }
    std::fs::write(
        folder.path("r.toml"),
        "model = \"net.onnx\"\noutput = \"nodir/out.onnx\"\n[[step]]\ndo = \"train\"\ndata = \"train.npz\"\n",
    )
    .unwrap();
    let output = folder.run("apply r.toml");
    assert!(said(&output).contains("no folder"), "{}", said(&output));
    assert!(!said(&output).contains("epoch"), "{}", said(&output));
}

#[test]
fn where_no_class_judges_the_loss_does() {
    let folder = prepared("judged");
    for (name, from) in [("reg.npz", "train.npz"), ("reg-test.npz", "test.npz")] {
        let all = npz::read(&folder.path(from)).unwrap();
        let labels = all[1].1.to_i64().unwrap();
        let values = labels.iter().flat_map(|&l| [l as f32, 1.0 - l as f32]);
        let values = Tensor::from_vec(&[labels.len(), 2], values.collect::<Vec<f32>>()).unwrap();
        let arrays = [all[0].clone(), ("labels".into(), values)];
        npz::write(&folder.path(name), &arrays, false).unwrap();
    }
    for words in [
        "train net.onnx --data reg.npz --values --loss mse --validate reg-test.npz --patience 1",
        "distill --teacher net.onnx --student net.onnx --data bare.npz --split 0.2",
    ] {
        let words =
            format!("{words} --batch 32 --train-threads 1 --epochs 3 -o out.onnx --force --json");
        let output = folder.run(&words);
        assert!(output.status.success(), "{words}: {}", said(&output));
        assert!(
            said(&output).contains("on validation"),
            "{words}: {}",
            said(&output)
        );
        let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let told = &found["training"][0];
        let epochs = told["epochs"].as_array().unwrap();
        let loss = |i: usize| epochs[i]["validation_loss"].as_f64().unwrap();
        let best = told["best_epoch"].as_u64().unwrap() as usize - 1;
        assert!((0..epochs.len()).all(|i| loss(best) <= loss(i)), "{words}");
    }
}

#[test]
fn a_batch_of_more_than_there_is_and_chosen_labels_are_told() {
    let folder = prepared("told-batch");
    let mut two = npz::read(&folder.path("train.npz")).unwrap();
    two.push(("other".into(), two[1].1.clone()));
    npz::write(&folder.path("two.npz"), &two, false).unwrap();
    let output = folder.run(
        "train net.onnx --data two.npz --label other --batch 1000 --epochs 1 --train-threads 1 -o out.onnx",
    );
    assert!(output.status.success(), "{}", said(&output));
    assert!(
        said(&output).contains("there are 320 examples"),
        "{}",
        said(&output)
    );
}
