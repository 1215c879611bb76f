//! `train` and `distill`, from outside: what they write, and that a killed run goes on.

use std::process::Stdio;
use std::time::Duration;

use super::*;

/// Images of 8 by 8 whose bright half is their class, and a test of others.
pub(super) fn halves(folder: &Folder) {
    for (name, count, first) in [("train.npz", 320usize, 0usize), ("test.npz", 80, 1000)] {
        let (mut data, mut labels) = (Vec::new(), Vec::new());
        for i in first..first + count {
            let class = i * 7919 % 13 % 2;
            labels.push(class as i64);
            let noise = |p: usize| ((i * 31 + p * 17) * 2_654_435_761 % 1000) as f32 / 1000.0;
            data.extend((0..64).map(|p| noise(p) + if p / 32 == class { 0.5 } else { 0.0 }));
        }
        let x = Tensor::from_vec(&[count, 1, 8, 8], data).unwrap();
        let labels = Tensor::vector(labels);
        let arrays = [("image".into(), x), ("labels".into(), labels)];
        npz::write(&folder.path(name), &arrays, false).unwrap();
    }
}

pub(super) const TRAIN: &str =
    "train lenet-300-100 --data train.npz --validate test.npz --batch 32 --train-threads 1";

pub(super) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_new_network_learns_and_its_recipe_repeats_it() {
    let folder = Folder::new("train");
    halves(&folder);
    let output = folder.run(&format!("{TRAIN} -o a.onnx --epochs 4 --recipe again.toml"));
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("epoch   4"), "{}", said(&output));
    assert!(
        said(&output).contains("100.00 % right"),
        "{}",
        said(&output)
    );
    let first = std::fs::read(folder.path("a.onnx")).unwrap();
    let output = folder.run("apply again.toml -o b.onnx");
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(first, std::fs::read(folder.path("b.onnx")).unwrap());
}

#[test]
fn a_killed_run_goes_on_to_the_same_bytes() {
    let folder = Folder::new("killed");
    halves(&folder);
    let words = format!("{TRAIN} -o out.onnx --epochs 30 --cache kept");
    let whole = folder.run(&words.replace("kept", "other"));
    assert!(whole.status.success(), "{}", said(&whole));
    let expected = std::fs::read(folder.path("out.onnx")).unwrap();
    std::fs::remove_file(folder.path("out.onnx")).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_edgesmith"))
        .args(words.split_whitespace())
        .current_dir(&folder.0)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // The first state that is kept is that after an epoch.
    let kept = folder.path("kept");
    let is_whole = |e: std::io::Result<std::fs::DirEntry>| {
        e.is_ok_and(|e| e.path().extension().is_some_and(|x| x == "statistics"))
    };
    while !std::fs::read_dir(&kept).is_ok_and(|mut all| all.any(is_whole)) {
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let output = folder.run(&format!("{words} --force"));
    assert!(output.status.success(), "{}", said(&output));
    assert!(
        said(&output).contains("goes on at step"),
        "{}",
        said(&output)
    );
    assert_eq!(expected, std::fs::read(folder.path("out.onnx")).unwrap());
}

#[test]
fn a_student_learns_from_a_teacher_without_labels() {
    let folder = Folder::new("distill");
    halves(&folder);
    let teacher = folder.run(&format!("{TRAIN} -o teacher.onnx --epochs 4"));
    assert!(teacher.status.success(), "{}", said(&teacher));
    let x = npz::read(&folder.path("train.npz")).unwrap().remove(0);
    npz::write(&folder.path("bare.npz"), &[x], false).unwrap();
    folder.run(&format!("{TRAIN} -o student.onnx --epochs 1 --rate 1e-9"));
    let output = folder.run(
        "distill --student student.onnx --teacher teacher.onnx --data bare.npz --validate test.npz \
         -o out.onnx --epochs 4 --batch 32 --train-threads 1",
    );
    assert!(output.status.success(), "{}", said(&output));
    assert!(
        said(&output).contains("100.00 % right"),
        "{}",
        said(&output)
    );
}

#[test]
fn a_student_is_made_of_its_teacher_and_learns_from_it_in_one_recipe() {
    let folder = Folder::new("student");
    halves(&folder);
    let teacher = folder.run(
        "train resnet-8 -o teacher.onnx --data train.npz --batch 32 --train-threads 1 --epochs 1",
    );
    assert!(teacher.status.success(), "{}", said(&teacher));
    let recipe = r#"
        model = "teacher.onnx"
        output = "out.onnx"
        [[step]]
        do = "student"
        width = 0.5
        [[step]]
        do = "train"
        teacher = "teacher.onnx"
        data = "train.npz"
        loss = ["kd", "hint 0.1 same"]
        epochs = 1
        batch = 32
        train-threads = 1
    "#;
    std::fs::write(folder.path("recipe.toml"), recipe).unwrap();
    let output = folder.run("apply recipe.toml");
    assert!(output.status.success(), "{}", said(&output));
    assert!(
        said(&output).contains("\"conv1.weight\", \"conv7.weight\": 16 channels, now 8"),
        "{}",
        said(&output)
    );
    let output = folder.run("student teacher.onnx -o half.onnx --width 0.5 --json");
    let found: serde_json::Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(&output)));
    let notes = found["variants"][1]["notes"].to_string();
    assert!(notes.contains("16 channels, now 8"), "{notes}");
    let output = folder.run("student teacher.onnx -o small.onnx --layers alternate");
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("no blocks"), "{}", said(&output));
}

#[test]
fn a_training_is_told_as_a_page_and_as_one_object() {
    let folder = Folder::new("told");
    halves(&folder);
    folder.run(&format!("{TRAIN} -o net.onnx --epochs 1"));
    let recipe = r#"
        model = "net.onnx"
        output = "out.onnx"
        [[step]]
        do = "train"
        teacher = "net.onnx"
        data = "train.npz"
        validate = "test.npz"
        loss = ["cross-entropy 0.5..0.1", "kd 2"]
        freeze = ["*.bias"]
        epochs = 3
        batch = 32
        train-seed = 7
        train-threads = 1
    "#;
    std::fs::write(folder.path("recipe.toml"), recipe).unwrap();
    let output = folder.run("apply recipe.toml --report r.html --json");
    let found: serde_json::Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(&output)));
    let summary = "the loss was 0.5 to 0.1 cross-entropy + 2 kd; the model is that of epoch";
    assert!(said(&output).contains(summary), "{}", said(&output));
    let told = &found["training"][0];
    let terms = told["loss"].as_array().unwrap();
    assert_eq!(terms[0]["name"], "cross-entropy");
    assert_eq!(
        (&terms[0]["weight"], &terms[0]["last_weight"]),
        (&0.5.into(), &0.1.into())
    );
    assert_eq!(terms[1]["numbers"], serde_json::json!([["T", 4.0]]));
    assert!(
        terms[1]["formula"]
            .as_str()
            .unwrap()
            .contains("softmax(s/T)")
    );
    assert!(terms[1]["source"].as_str().unwrap().contains("Hinton"));
    for (key, value) in [
        ("seed", 7),
        ("threads", 1),
        ("epochs_asked", 3),
        ("examples", 320),
    ] {
        assert_eq!(told[key], value, "{key}");
    }
    assert_eq!(
        (&told["optimizer"], &told["schedule"]),
        (&"adamw".into(), &"cosine".into())
    );
    assert!(told["seconds"].as_f64().unwrap() > 0.0);
    assert_eq!(told["frozen"].as_array().unwrap().len(), 3);
    let epochs = told["epochs"].as_array().unwrap();
    assert_eq!(epochs.len(), 3);
    let number = |i: usize, key: &str| epochs[i][key].as_f64().unwrap();
    assert!(number(2, "rate") < number(0, "rate"));
    let best = told["best_epoch"].as_u64().unwrap() as usize - 1;
    assert!((0..3).all(|i| number(i, "accuracy") <= number(best, "accuracy")));
    // The weight of the first term goes from 0.5 to 0.1, that of the second stays.
    let terms = |i: usize| [0, 1].map(|t| epochs[i]["terms"][t].as_f64().unwrap());
    let [entropy, kd] = terms(0);
    let loss = number(0, "loss") - 2.0 * kd;
    assert!(
        (0.3 * entropy..=0.5 * entropy).contains(&loss),
        "{loss} {entropy}"
    );
    let new = folder.run(&format!("{TRAIN} -o new.onnx --epochs 1 --json"));
    let new: serde_json::Value =
        serde_json::from_slice(&new.stdout).unwrap_or_else(|_| panic!("{}", said(&new)));
    assert_eq!(new["training"][0]["epochs"].as_array().unwrap().len(), 1);
    assert_eq!(new["model"]["sha256"], "", "a new network has no file");
    let page = std::fs::read_to_string(folder.path("r.html")).unwrap();
    for part in [
        "How it was trained",
        "Loss by epoch",
        "Accuracy by epoch",
        "with T = 4",
    ] {
        assert!(page.contains(part), "{part}");
    }
}

#[test]
fn training_refuses_what_it_cannot_use() {
    let folder = Folder::new("refuse");
    halves(&folder);
    folder.run(&format!("{TRAIN} -o net.onnx --epochs 1"));
    let refused = |words: &str| {
        let output = folder.run(words);
        assert!(!output.status.success(), "{words}");
        said(&output)
    };
    let unknown = refused("train net.onnx -o x.onnx --data train.npz --loss crossentropy");
    assert!(
        unknown.contains("unknown loss \"crossentropy\""),
        "{unknown}"
    );
    let alone = refused("train net.onnx -o x.onnx --data train.npz --loss kd");
    assert!(alone.contains("needs a teacher"), "{alone}");
    let missing = refused("train net.onnx -o x.onnx --data none.npz");
    assert!(missing.contains("none.npz"), "{missing}");
    let pair = refused(
        "distill --student net.onnx --teacher net.onnx -o x.onnx --data train.npz --loss hint",
    );
    assert!(pair.contains("compares two values"), "{pair}");
    assert!(!folder.path("x.onnx").exists());
}

#[test]
fn a_quantised_model_trains_and_stays_quantised() {
    let folder = Folder::new("qat");
    halves(&folder);
    folder.run(&format!("{TRAIN} -o net.onnx --epochs 2"));
    let x = npz::read(&folder.path("train.npz")).unwrap().remove(0);
    npz::write(&folder.path("calib.npz"), &[x], false).unwrap();
    let made = folder.run("quantize net.onnx -o int8.onnx --to int8 --calibrate calib.npz");
    assert!(made.status.success(), "{}", said(&made));
    let output = folder.run(
        "distill --student int8.onnx --teacher net.onnx --data train.npz --validate test.npz -o out.onnx \
         --epochs 1 --batch 32 --train-threads 1 --rate 1e-5",
    );
    assert!(output.status.success(), "{}", said(&output));
    let ops = |name: &str| {
        let model = edgesmith_formats::read(&folder.path(name)).unwrap();
        let mut ops: Vec<String> = model.graph.nodes().map(|(_, n)| n.op.clone()).collect();
        ops.sort();
        ops
    };
    assert_eq!(ops("out.onnx"), ops("int8.onnx"));
    assert!(
        said(&output).contains("100.00 % right"),
        "{}",
        said(&output)
    );
}

#[test]
fn a_recipe_distils_rounds_and_trains_the_rounded_one() {
    let folder = Folder::new("chain");
    halves(&folder);
    folder.run(&format!("{TRAIN} -o teacher.onnx --epochs 4"));
    folder.run(&format!("{TRAIN} -o student.onnx --epochs 1 --rate 1e-9"));
    let x = npz::read(&folder.path("train.npz")).unwrap().remove(0);
    npz::write(&folder.path("calib.npz"), &[x], false).unwrap();
    let train = "[[step]]\ndo = \"train\"\nteacher = \"teacher.onnx\"\ndata = \"train.npz\"\nvalidate = \
                 \"test.npz\"\nbatch = 32\ntrain-threads = 1\n";
    let recipe = format!(
        "model = \"student.onnx\"\noutput = \"out.onnx\"\ncalibrate = \"calib.npz\"\n{train}epochs = 4\n\
         [[step]]\ndo = \"optimize\"\nlevel = \"basic\"\n[[step]]\ndo = \"quantize\"\nto = \"int8\"\n\
         {train}epochs = 1\nrate = 1e-5\n"
    );
    std::fs::write(folder.path("chain.toml"), recipe).unwrap();
    let output = folder.run("apply chain.toml");
    assert!(output.status.success(), "{}", said(&output));
    let model = edgesmith_formats::read(&folder.path("out.onnx")).unwrap();
    assert!(model.graph.nodes().any(|(_, n)| n.is("DequantizeLinear")));
    assert!(
        said(&output).contains("100.00 % right"),
        "{}",
        said(&output)
    );
}

#[test]
fn what_pruning_did_is_on_the_page() {
    let folder = Folder::new("pruned-page");
    halves(&folder);
    let page = |name: &str| std::fs::read_to_string(folder.path(name)).unwrap();
    let output = folder.run(&format!(
        "{TRAIN} -o sparse.onnx --epochs 5 --sparsity 0.8 --sparsity-every 5 --all-layers --report sparse.html --json"
    ));
    assert!(output.status.success(), "{}", said(&output));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let epochs = json["training"][0]["epochs"].as_array().unwrap();
    let zeros: Vec<f64> = epochs
        .iter()
        .map(|e| e["sparsity"].as_f64().unwrap())
        .collect();
    assert!(zeros.windows(2).all(|w| w[0] <= w[1]), "{zeros:?}");
    assert_eq!(zeros.last(), Some(&0.8));
    assert!(page("sparse.html").contains("Zeros by epoch"));
    let output = folder.run(
        "prune sparse.onnx -o small.onnx --structure channel --amount 0.5 --report small.html",
    );
    assert!(output.status.success(), "{}", said(&output));
    let html = page("small.html");
    for text in [
        "What was removed",
        "What each layer keeps",
        "channels inside",
    ] {
        assert!(html.contains(text), "{text}");
    }
    let lottery = "lottery lenet-300-100 -o ticket.onnx --data train.npz --validate test.npz --evaluate test.npz --epochs 1 \
        --batch 32 --train-threads 1 --levels 2 --controls reinit --cache kept --report ticket.html";
    let output = folder.run(lottery);
    assert!(output.status.success(), "{}", said(&output));
    let html = page("ticket.html");
    assert!(html.contains("How tickets learned") && html.contains("Accuracy by weights left"));
    let left = std::fs::read_dir(folder.path("kept")).unwrap().count();
    assert_eq!(left, 0, "runs that are over are dropped");
}
