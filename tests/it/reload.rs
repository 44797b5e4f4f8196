//! Hot reload: however files are changed, whatever is in them, and whatever goes on meanwhile.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bursar::daemon::StartError;
use serde_json::{Value, json};

use crate::kit::{Shop, counted, deliver};
use crate::stage::{Running, Stage, eventually};

/// Tells the shop each event's id with the version of the script.
fn version(shop: &Shop, version: &str) -> String {
    format!(
        r#"on("deposit.*", #{{ retry: #{{ first: "1ms", max: "1ms" }} }}, |event| {{ http::post("{}/event", [event.id, "{version}"]); }});"#,
        shop.url
    )
}

async fn happens(url: &str, id: u64) {
    let body = json!({"id": id, "type": "deposit", "status": "confirmed"}).to_string();
    assert_eq!(deliver(url, body.as_bytes()).await.0, 200);
}

/// Waits until events are handled by that version.
async fn in_use(shop: &Shop, wanted: &str) {
    eventually(&format!("{wanted} is in use"), || async {
        let last = shop.received("/event").pop()?;
        (last.body[1] == wanted).then_some(())
    })
    .await;
}

/// The mistakes in the folder, as the view shows them.
fn errors(daemon: &Running) -> Vec<Value> {
    daemon.runner.scripts()["errors"]
        .as_array()
        .unwrap()
        .clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn however_scripts_are_saved_they_are_seen_and_no_event_is_lost_or_doubled() {
    let shop = Shop::open().await;
    let stage = Stage::new().await.config(&shop.allowed());
    let stage = stage.script("a.rhai", &version(&shop, "first"));
    let daemon = stage.start().await;
    let go_on = Arc::new(AtomicBool::new(true));
    let load = tokio::spawn({
        let (url, go_on) = (daemon.callbacks.clone(), Arc::clone(&go_on));
        async move {
            let mut sent = 0;
            while go_on.load(Ordering::SeqCst) {
                happens(&url, sent).await;
                sent += 1;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            sent
        }
    });
    in_use(&shop, "first").await;

    stage.write("scripts/a.rhai", &version(&shop, "in place"));
    in_use(&shop, "in place").await;

    stage.write("scripts/.a.rhai.new", &version(&shop, "renamed"));
    let scripts = stage.path("scripts");
    std::fs::rename(scripts.join(".a.rhai.new"), scripts.join("a.rhai")).unwrap();
    in_use(&shop, "renamed").await;

    let whole = version(&shop, "slowly written");
    stage.write("scripts/a.rhai", &whole[..whole.len() / 2]);
    tokio::time::sleep(Duration::from_millis(700)).await;
    stage.write("scripts/a.rhai", &whole);
    in_use(&shop, "slowly written").await;

    stage.write("scripts/new/folder/b.rhai", &version(&shop, "sub-folder"));
    std::fs::remove_file(scripts.join("a.rhai")).unwrap();
    in_use(&shop, "sub-folder").await;

    // A ConfigMap: the names are links through `..data`, which is swapped in one step.
    std::fs::remove_dir_all(scripts.join("new")).unwrap();
    for (folder, version_of) in [("..one", "mounted"), ("..two", "swapped")] {
        stage.write(
            &format!("scripts/{folder}/a.rhai"),
            &version(&shop, version_of),
        );
        symlink(folder, scripts.join("..data_tmp")).unwrap();
        std::fs::rename(scripts.join("..data_tmp"), scripts.join("..data")).unwrap();
        if folder == "..one" {
            symlink("..data/a.rhai", scripts.join("a.rhai")).unwrap();
        }
        in_use(&shop, version_of).await;
    }

    stage.write("other/a.rhai", &version(&shop, "another folder"));
    std::fs::rename(&scripts, stage.path("old")).unwrap();
    std::fs::rename(stage.path("other"), &scripts).unwrap();
    in_use(&shop, "another folder").await;
    stage.write("scripts/a.rhai", &version(&shop, "watched again"));
    in_use(&shop, "watched again").await;

    go_on.store(false, Ordering::SeqCst);
    let sent = load.await.unwrap();
    let runs = daemon
        .all_closed(usize::try_from(sent).unwrap().min(1))
        .await;
    assert!(runs.iter().all(|run| run["state"] == "succeeded"));
    let mut handled = BTreeMap::new();
    for received in shop.received("/event") {
        let id = received.body[0].as_u64().unwrap();
        *handled.entry(id).or_insert(0) += 1;
    }
    // While there was no file under that name there was nobody to handle what happened then.
    assert!(handled.values().all(|times| *times == 1), "{handled:?}");
    let events = crate::kit::events(&daemon);
    assert_eq!(events, usize::try_from(sent).unwrap());
    assert_eq!(handled.len(), runs.len());
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn not_one_event_is_without_a_handler_while_scripts_are_swapped() {
    let shop = Shop::open().await;
    let stage = Stage::new().await.config(&shop.allowed());
    let stage = stage.script("a.rhai", &version(&shop, "0"));
    let daemon = stage.start().await;
    let mut sent = 0;
    for number in 1..5 {
        stage.write("scripts/a.rhai", &version(&shop, &number.to_string()));
        let before = daemon.runner.scripts()["set"].clone();
        while daemon.runner.scripts()["set"] == before {
            happens(&daemon.callbacks, sent).await;
            sent += 1;
        }
    }
    let runs = daemon.all_closed(usize::try_from(sent).unwrap()).await;
    assert_eq!(runs.len(), usize::try_from(sent).unwrap());
    assert_eq!(shop.received("/event").len(), runs.len());
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_scripts_leave_the_old_ones_in_use_and_say_where() {
    let shop = Shop::open().await;
    let stage = Stage::new().await.config(&shop.allowed());
    let stage = stage
        .script("a.rhai", &version(&shop, "good"))
        .script("b.rhai", "on(\"never\", |event| { });");
    let daemon = stage.start().await;
    assert!(errors(&daemon).is_empty());
    stage.write("scripts/a.rhai", &version(&shop, "half of it"));
    stage.write(
        "scripts/b.rhai",
        "on(\"never\", |event| {\n    let x = ;\n});",
    );
    let error = eventually("the mistake is shown", || async {
        errors(&daemon).into_iter().next()
    })
    .await;
    assert!(
        error["where"].as_str().unwrap().contains("b.rhai:2:13"),
        "{error:#}"
    );
    let text = error["text"].as_str().unwrap();
    assert!(text.contains("let x = ;"), "{text}");
    happens(&daemon.callbacks, 1).await;
    in_use(&shop, "good").await;
    let failed = r#"bursar_reloads_total{outcome="failed"}"#;
    let count = counted(&daemon, failed).await;
    assert!(count >= 1);
    daemon.stop().await;
    // A start with the same folder goes on with the set that was used last.
    let daemon = stage.start().await;
    assert!(!errors(&daemon).is_empty());
    happens(&daemon.callbacks, 2).await;
    let told = shop.visited("/event", 2).await;
    assert_eq!(told[1].body, json!([2, "good"]));
    stage.write("scripts/b.rhai", "on(\"never\", |event| { });");
    eventually("the mistakes are gone", || async {
        errors(&daemon).is_empty().then_some(())
    })
    .await;
    happens(&daemon.callbacks, 3).await;
    in_use(&shop, "half of it").await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_start_with_broken_scripts_is_refused() {
    let stage = Stage::new()
        .await
        .script("a.rhai", "on(\"x\", |event| { nonsense(); });")
        .script("b.rhai", "schedule(\"s\", \"61 * * * *\", |tick| { });");
    let Err(error) = stage.try_start().await else {
        panic!("broken scripts were taken");
    };
    let text = error.to_string();
    let StartError::Scripts(mistakes) = error else {
        panic!("{error:?}");
    };
    assert_eq!(mistakes.len(), 2, "{text}");
    assert!(
        text.contains("nonsense") && text.contains("b.rhai"),
        "{text}"
    );
    stage.write("scripts/a.rhai", "on(\"x\", |event| { });");
    stage.write("scripts/b.rhai", "");
    stage.start().await.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_finishes_on_the_scripts_it_began_with_also_after_a_restart() {
    let shop = Shop::open().await;
    let stage = Stage::new()
        .await
        .config(&shop.allowed())
        .script("lib/words.rhai", r#"fn word() { "old" }"#)
        .script(
            "a.rhai",
            &format!(
                r#"import "lib/words" as words;
on("deposit.*", #{{ retry: #{{ first: "1ms", max: "1ms" }} }}, |event| {{
    http::post("{0}/wait", event.id);
    http::post("{0}/event", [event.id, words::word()]);
    http::post("{0}/late", event.id);
    http::post("{0}/event", [event.id, words::word()]);
}});"#,
                shop.url
            ),
        );
    let daemon = stage.start().await;
    shop.hold("/wait");
    happens(&daemon.callbacks, 1).await;
    shop.visited("/wait", 1).await;
    let set = daemon.runner.scripts()["set"].clone();
    stage.write("scripts/lib/words.rhai", r#"fn word() { "new" }"#);
    eventually("the new set is in use", || async {
        (daemon.runner.scripts()["set"] != set).then_some(())
    })
    .await;
    // So often that the run is still being tried when the daemon is started again.
    shop.answers("/late", &[500; 2]);
    shop.release("/wait");
    shop.visited("/late", 1).await;
    daemon.stop().await;
    let daemon = stage.start().await;
    daemon.all_closed(1).await;
    happens(&daemon.callbacks, 2).await;
    daemon.all_closed(2).await;
    let told: Vec<Value> = shop
        .received("/event")
        .into_iter()
        .map(|one| one.body)
        .collect();
    let expected = [[json!(1), json!("old")], [json!(2), json!("new")]];
    assert_eq!(
        told,
        [&expected[0], &expected[0], &expected[1], &expected[1]].map(|one| json!(one))
    );
    daemon.stop().await;
}
