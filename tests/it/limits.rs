//! Scripts that use too much are stopped, say so, and harm nobody else.

use serde_json::json;

use crate::kit::{Shop, deliver};
use crate::stage::{Running, Stage};

async fn happens(daemon: &Running, id: u64) {
    let body = json!({"id": id, "type": "deposit", "status": "confirmed"}).to_string();
    assert_eq!(deliver(&daemon.callbacks, body.as_bytes()).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loop_without_end_ends_at_its_limit_and_others_go_on_meanwhile() {
    let shop = Shop::open().await;
    let stage = Stage::new()
        .await
        .config(&shop.allowed())
        .config("scripts.limits.operations = 10000000000\n")
        .script(
            "loops.rhai",
            r#"
on("deposit.*", #{ timeout: "5s" }, |event| {
    while true { }
});"#,
        )
        .script(
            "works.rhai",
            &format!(
                r#"on("invoice.*", |event| {{ http::post("{}/event", event.id); }});"#,
                shop.url
            ),
        );
    let daemon = stage.start().await;
    for id in 0..4 {
        happens(&daemon, id).await;
    }
    for id in 0..4 {
        let body = json!({"id": id, "type": "invoice", "status": "confirmed"}).to_string();
        assert_eq!(deliver(&daemon.callbacks, body.as_bytes()).await.0, 200);
    }
    shop.visited("/event", 4).await;
    let runs = daemon.runner.runs(&crate::stage::everything()).unwrap();
    let runs = runs.as_array().unwrap();
    let looping = |run: &&serde_json::Value| run["script"] == "loops";
    assert!(
        runs.iter()
            .filter(looping)
            .any(|run| run["state"] == "running")
    );
    let runs = daemon.all_closed(8).await;
    assert_eq!(runs.iter().filter(looping).count(), 4);
    for run in runs.iter().filter(looping) {
        assert_eq!(run["state"], "parked");
        let error = run["error"].as_str().unwrap();
        assert!(error.contains("longer than its limit of 5s"), "{error}");
        assert!(error.contains("loop"), "{error}");
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_script_piles_up_is_refused_and_the_daemon_goes_on() {
    let hogs = [
        ("text", r#"let s = "x"; loop { s += s; }"#),
        ("list", "let a = [1]; loop { a += a; }"),
        (
            "map",
            "let m = #{}; let n = 0; loop { m[`k${n}`] = n; n += 1; }",
        ),
        ("padding", "let a = []; a.pad(2000000000, 0);"),
        ("range", "let a = []; for n in 0..9000000000 { a.push(n); }"),
        ("nested", "let a = []; loop { a = [a]; }"),
        ("recursion", "fn down(n) { down(n + 1) } down(0);"),
        ("operations", "let n = 0; loop { n += 1; }"),
        (
            "state",
            r#"let s = "x"; loop { s += s; state::set("s", s); }"#,
        ),
        ("log", r#"loop { log::info("again and again"); }"#),
    ];
    let shop = Shop::open().await;
    let mut stage = Stage::new()
        .await
        .config(&shop.allowed())
        .config("scripts.limits.operations = 1000000\nscripts.limits.array_size = 2000\n");
    for (number, (name, hog)) in hogs.into_iter().enumerate() {
        let (functions, body) = match hog.split_once("} down") {
            Some((function, _)) => (format!("{function}}}"), "down(0);"),
            None => (String::new(), hog),
        };
        let script = format!(
            "{functions}\non(\"deposit.*\", #{{ where: #{{ id: {number} }} }}, |event| {{ {body} }});"
        );
        stage = stage.script(&format!("{name}.rhai"), &script);
    }
    let works = format!(
        r#"on("invoice.*", |event| {{ http::post("{}/event", event.id); }});"#,
        shop.url
    );
    let stage = stage.script("works.rhai", &works);
    let daemon = stage.start().await;
    for number in 0..hogs.len() {
        happens(&daemon, number as u64).await;
    }
    let runs = daemon.all_closed(hogs.len()).await;
    for run in &runs {
        assert_eq!(run["state"], "parked", "{run:#}");
        let error = run["error"].as_str().unwrap();
        let script = run["script"].as_str().unwrap();
        assert!(error.contains(&format!("{script}.rhai:")), "{error}");
    }
    let invoice = br#"{"id":1,"type":"invoice","status":"confirmed"}"#;
    deliver(&daemon.callbacks, invoice).await;
    shop.visited("/event", 1).await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_steps_and_long_answers_are_kept() {
    let shop = Shop::open().await;
    let stage = Stage::new().await.config(&shop.allowed()).script(
        "a.rhai",
        &format!(
            r#"on("deposit.*", |event| {{
    let text = "x";
    text.pad(1000, 'x');
    for n in 0..20000 {{ state::set(`k${{n % 10}}`, text); }}
    let answer = ();
    try {{ answer = http::get("{0}/long"); }} catch (e) {{ answer = e; }}
    state::add("n", 1);
    http::post("{0}/event", [answer.status, answer.body.len(), state::get("n")]);
}});"#,
            shop.url
        ),
    );
    shop.answers("/long", &[500]);
    shop.answers_at_length("/long", 100_000);
    let daemon = stage.start().await;
    happens(&daemon, 1).await;
    let run = daemon.all_closed(1).await.remove(0);
    assert_eq!(run["state"], "succeeded", "{run:#}");
    let told = &shop.received("/event")[0].body;
    assert_eq!(told, &json!([500, 100_000, 1]));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deep_nesting_in_what_arrives_or_is_written_does_not_end_the_process() {
    let shop = Shop::open().await;
    let deep = |levels: usize| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
    let stage = Stage::new().await.config(&shop.allowed()).script(
        "a.rhai",
        &format!(
            r#"on("*", |event| {{ http::post("{}/event", event.kind); }});"#,
            shop.url
        ),
    );
    let daemon = stage.start().await;
    let body = format!(
        r#"{{"id":1,"type":"deposit","status":"confirmed","deep":{}}}"#,
        deep(100)
    );
    assert_eq!(deliver(&daemon.callbacks, body.as_bytes()).await.0, 200);
    let body = deep(100_000);
    assert_eq!(deliver(&daemon.callbacks, body.as_bytes()).await.0, 200);
    let told = shop.visited("/event", 2).await;
    let mut kinds: Vec<&str> = told.iter().filter_map(|one| one.body.as_str()).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["deposit.confirmed", "unreadable"]);
    stage.write("scripts/b.rhai", &format!("let x = {};", deep(10_000)));
    crate::stage::eventually("the mistake is shown", || async {
        let scripts = daemon.runner.scripts();
        (!scripts["errors"].as_array()?.is_empty()).then_some(())
    })
    .await;
    happens(&daemon, 3).await;
    shop.visited("/event", 3).await;
    daemon.stop().await;
}
