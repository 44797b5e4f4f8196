//! Starting, refusing to start, and starting again.

use bursar::daemon::StartError;

use crate::stage::Stage;

const NOTHING: &str = r#"on("*", |event| { });"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_has_stopped_leaves_its_store_to_the_next_one() {
    let stage = Stage::new().await.script("a.rhai", NOTHING);
    for _ in 0..3 {
        stage.start().await.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_daemon_on_the_same_store_is_refused_and_the_first_goes_on() {
    let stage = Stage::new().await.script("a.rhai", NOTHING);
    let first = stage.start().await;
    let Err(error) = stage.try_start().await else {
        panic!("two daemons share one store");
    };
    assert!(matches!(error, StartError::Store(_)), "{error}");
    let text = error.to_string();
    let store = stage.path("state");
    assert!(text.contains(store.to_str().unwrap()), "{text}");
    assert!(
        text.contains("another bursar") && text.contains("store.path"),
        "{text}"
    );
    let body = br#"{"id":1,"type":"deposit","status":"confirmed"}"#;
    assert_eq!(crate::kit::deliver(&first.callbacks, body).await.0, 200);
    first.all_closed(1).await;
    first.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_taken_is_named_with_its_key_and_the_store_is_free_again() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let stage = Stage::new().await.script("a.rhai", NOTHING);
    for section in ["callbacks", "admin"] {
        let mut config = stage.resolved();
        let listen = address.parse().unwrap();
        match section {
            "callbacks" => config.callbacks.listen = listen,
            _ => config.admin.listen = listen,
        }
        let clock = std::sync::Arc::new(bursar::domain::clock::SystemClock);
        let Err(error) = bursar::daemon::Daemon::start(config, clock).await else {
            panic!("two listeners share one port");
        };
        let text = error.to_string();
        assert!(text.contains(&address), "{text}");
        let key = format!("`{section}.listen`");
        assert!(text.contains(&key), "{text}");
    }
    stage.start().await.stop().await;
}
