//! The listeners over real connections, with a real store behind them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::callbacks::patient_callbacks;
use super::{admin, bind, callbacks, serve};
use crate::config;
use crate::domain::clock::SystemClock;
use crate::domain::payment::Patience;
use crate::domain::policy::Policy;
use crate::domain::secret::Secret;
use crate::domain::signature::Signer;
use crate::gateway::Client;
use crate::outbound::{DataFolder, ScriptHttp};
use crate::runner::{Handle, Parts};
use crate::scripting::{Known, Sources};
use crate::store::{self, Store};
use crate::telemetry::Telemetry;
use crate::triggers::intake::Verifier;

const SECRET: &str = "AbCdEfG123456";
const CALLBACK: &str = include_str!("../../tests/it/callbacks/withdrawal-confirmed.json");
const SCRIPT: &str = r#"
    //! Pays.
    schedule("daily", "0 9 * * *", |tick| {});
    on("withdrawal.*", |event| {});
"#;

/// A runner that executes nothing, with its folder.
struct World {
    handle: Handle,
    telemetry: Telemetry,
    _folder: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let world = Self::without_scripts();
        let sources = Sources::from_iter([("pay.rhai".to_owned(), SCRIPT.to_owned())]);
        world.handle.reload(Ok(sources)).await.unwrap();
        world
    }

    fn without_scripts() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let telemetry = Telemetry::default();
        let environment = BTreeMap::from([
            ("BURSAR_GATEWAY_KEY".to_owned(), "key".to_owned()),
            ("BURSAR_GATEWAY_SECRET".to_owned(), SECRET.to_owned()),
            // Nothing listens there.
            (
                "BURSAR__GATEWAY__BASE_URL".to_owned(),
                "http://127.0.0.1:9/api/v2".to_owned(),
            ),
        ]);
        let config = config::resolve(None, &environment, config::Need::Everything).unwrap();
        let store = folder.path().join("state");
        let store = Store::open(&store, &store::Options::default(), &telemetry).unwrap();
        let handle = Handle::build(Parts {
            store,
            gateway: Client::new(&config.gateway, &telemetry).unwrap(),
            verifier: Verifier::new(&config.gateway.key, &config.gateway.secret),
            http: ScriptHttp::new(&config.scripts.http, BTreeMap::new(), &telemetry).unwrap(),
            files: DataFolder::new(&PathBuf::from("nowhere")),
            clock: Arc::new(SystemClock),
            telemetry: telemetry.clone(),
            limits: config.scripts.limits,
            names: Known::default(),
            patience: Patience {
                after: Duration::from_mins(15),
                resend: false,
            },
            sweep_every: Duration::from_mins(5),
            balance_check_every: Duration::ZERO,
            max_in_flight: 1,
            history: config.history,
            policy: Policy::default(),
        })
        .unwrap();
        Self {
            handle,
            telemetry,
            _folder: folder,
        }
    }

    fn callbacks_config() -> config::Callbacks {
        config::Callbacks {
            listen: any(),
            path: "/callbacks".to_owned(),
            max_body: 4096,
        }
    }

    async fn callbacks(&self) -> Server {
        let config = Self::callbacks_config();
        let router = callbacks(self.handle.clone(), &config, &self.telemetry);
        Server::start(router).await
    }

    async fn admin(&self, token: Option<&str>) -> Server {
        let config = config::Admin {
            listen: any(),
            token: token.map(Secret::new),
            users: Vec::new(),
        };
        Server::start(admin(self.handle.clone(), &config, &self.telemetry)).await
    }
}

fn any() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// A router that is being served.
struct Server {
    addr: SocketAddr,
    stop: oneshot::Sender<()>,
    served: JoinHandle<std::io::Result<()>>,
}

/// An answer as it came.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    fn error_code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap().to_owned()
    }
}

impl Server {
    async fn start(router: Router) -> Self {
        let listener = bind(any(), "admin").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(serve(listener, router, async {
            stopped.await.ok();
        }));
        Self { addr, stop, served }
    }

    /// Sends bytes and reads until the connection closes.
    async fn raw(&self, request: &[u8]) -> Answer {
        let mut stream = TcpStream::connect(self.addr).await.unwrap();
        stream.write_all(request).await.unwrap();
        read_answer(stream).await
    }

    /// `head` is the request line and headers, with `\n` between them.
    async fn ask(&self, head: &str, body: &[u8]) -> Answer {
        let mut lines: Vec<String> = head.lines().map(str::to_owned).collect();
        if !head.to_lowercase().contains("\nhost:") {
            lines.push(format!("host: {}", self.addr));
        }
        lines.push("connection: close".to_owned());
        lines.push(format!("content-length: {}", body.len()));
        let request = lines.join("\r\n") + "\r\n\r\n";
        self.raw(&[request.as_bytes(), body].concat()).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask(&format!("GET {path} HTTP/1.1"), b"").await
    }

    async fn post_callback(&self, body: &[u8], signature: &str) -> Answer {
        let head = format!(
            "POST /callbacks HTTP/1.1\nX-Processing-Key: key\nX-Processing-Signature: {signature}"
        );
        self.ask(&head, body).await
    }
}

async fn read_answer(mut stream: TcpStream) -> Answer {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    Answer {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        head: head.to_lowercase(),
        body: body.to_owned(),
    }
}

fn sign(body: &[u8]) -> String {
    Signer::new(&Secret::new(SECRET)).sign(body)
}

#[tokio::test]
async fn a_genuine_callback_is_answered_200_without_a_body_and_is_there_afterwards() {
    let world = World::new().await;
    let server = world.callbacks().await;
    let body = CALLBACK.as_bytes();
    for _ in 0..2 {
        let answer = server.post_callback(body, &sign(body)).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, ""));
    }
    let unreadable = server.post_callback(b"no JSON", &sign(b"no JSON")).await;
    assert_eq!((unreadable.status, unreadable.body.as_str()), (200, ""));

    let admin = world.admin(None).await;
    let rows = admin.get("/api/v1/callbacks").await.json();
    let kinds: Vec<_> = rows
        .as_array()
        .unwrap()
        .iter()
        .map(|row| &row["kind"])
        .collect();
    assert_eq!(kinds, ["unreadable", "withdrawal.confirmed"]);
    let runs = admin
        .get("/api/v1/runs?state=queued&script=pay")
        .await
        .json();
    assert_eq!(runs.as_array().unwrap().len(), 1);
    let run = runs[0]["id"].as_str().unwrap();
    let shown = admin.get(&format!("/api/v1/runs/{run}")).await.json();
    assert_eq!(shown["journal"], json!([]));

    let key = rows[1]["id"].as_str().unwrap();
    let shown = admin.get(&format!("/api/v1/callbacks/{key}")).await.json();
    assert_eq!(shown["event"]["kind"], "withdrawal.confirmed");
    let one = admin.get("/api/v1/callbacks?limit=1&kind=unreadable").await;
    assert_eq!(one.json().as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_forged_callback_is_answered_403_and_leaves_nothing_behind() {
    let world = World::new().await;
    let server = world.callbacks().await;
    let body = CALLBACK.as_bytes();
    let other = server.post_callback(body, &sign(b"another body")).await;
    assert_eq!(other.status, 403);
    let none = server.ask("POST /callbacks HTTP/1.1", body).await;
    assert_eq!(none.status, 403);
    let rows = world.admin(None).await.get("/api/v1/callbacks").await;
    assert_eq!(rows.json(), json!([]));
}

#[tokio::test]
async fn a_callback_above_the_limit_is_refused_before_it_is_read() {
    let world = World::new().await;
    let server = world.callbacks().await;
    let announced = b"POST /callbacks HTTP/1.1\r\nhost: x\r\ncontent-length: 4097\r\n\r\n";
    assert_eq!(server.raw(announced).await.status, 413);
    let chunked = format!(
        "POST /callbacks HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1001\r\n{}",
        "x".repeat(4097)
    );
    let answer = server.raw(chunked.as_bytes()).await;
    assert_eq!(answer.status, 413);
    let largest = vec![b'x'; 4096];
    assert_eq!(
        server.post_callback(&largest, &sign(&largest)).await.status,
        200
    );
    let metrics = world.telemetry.metrics().render();
    assert!(
        metrics.contains(r#"bursar_callbacks_total{outcome="too_large"} 2"#),
        "{metrics}"
    );
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let world = World::new().await;
    let config = World::callbacks_config();
    let router = patient_callbacks(
        world.handle.clone(),
        &config,
        &world.telemetry,
        Duration::from_millis(20),
    );
    let server = Server::start(router).await;
    let half = b"POST /callbacks HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nhalf";
    assert_eq!(server.raw(half).await.status, 408);
}

#[tokio::test]
async fn callbacks_are_taken_at_their_path_and_method_only() {
    let server = World::new().await.callbacks().await;
    assert_eq!(server.get("/callbacks").await.status, 405);
    for path in ["/", "/callbacks/", "/callbacks/x", "/healthz"] {
        let answer = server.ask(&format!("POST {path} HTTP/1.1"), b"").await;
        assert_eq!(answer.status, 404, "{path}");
    }
}

#[tokio::test]
async fn the_daemon_is_ready_once_it_has_scripts() {
    let world = World::without_scripts();
    let server = world.admin(Some("token")).await;
    assert_eq!(server.get("/healthz").await.status, 200);
    let answer = server.get("/readyz").await;
    assert_eq!(
        (answer.status, answer.error_code()),
        (503, "no_scripts".into())
    );
    let sources = Sources::from_iter([("pay.rhai".to_owned(), SCRIPT.to_owned())]);
    world.handle.reload(Ok(sources)).await.unwrap();
    assert_eq!(server.get("/readyz").await.status, 200);
}

#[tokio::test]
async fn a_token_opens_the_api_and_nothing_else_does() {
    let world = World::new().await;
    let server = world.admin(Some("a token")).await;
    for path in ["/api/v1/overview", "/api/v1/runs/x", "/metrics"] {
        for header in [
            "",
            "\nAuthorization: Bearer a toke",
            "\nAuthorization: Basic a token",
        ] {
            let answer = server
                .ask(&format!("GET {path} HTTP/1.1{header}"), b"")
                .await;
            assert_eq!(
                (answer.status, answer.error_code()),
                (401, "unauthorized".into())
            );
            assert!(
                answer.head.contains("www-authenticate: bearer"),
                "{}",
                answer.head
            );
        }
    }
    let head = "GET /metrics HTTP/1.1\nHost: bursar.example\nAuthorization: Bearer a token";
    let answer = server.ask(head, b"").await;
    assert_eq!(answer.status, 200);
    assert!(
        answer.body.contains("# HELP bursar_runs_queued"),
        "{}",
        answer.body
    );
    // The page has to come without one, or it could not ask for it.
    let page = server.get("/").await;
    assert_eq!(page.status, 200);
    assert!(
        page.head
            .contains("content-security-policy: default-src 'none'")
    );
}

#[tokio::test]
async fn without_a_token_only_requests_meant_for_this_machine_are_answered() {
    let server = World::new().await.admin(None).await;
    for path in ["/api/v1/overview", "/metrics", "/"] {
        assert_eq!(server.get(path).await.status, 200, "{path}");
        let head = format!("GET {path} HTTP/1.1\nHost: evil.example:8081");
        let answer = server.ask(&head, b"").await;
        assert_eq!(
            (answer.status, answer.error_code()),
            (403, "wrong_host".into())
        );
    }
}

#[tokio::test]
async fn a_schedule_is_fired_by_hand() {
    let world = World::new().await;
    let server = world.admin(None).await;
    let trigger = "POST /api/v1/trigger HTTP/1.1";
    let as_json = format!("{trigger}\nContent-Type: application/json; charset=utf-8");
    let wanted = br#"{"script": "pay", "name": "daily", "at": "2026-11-22T09:00:00Z"}"#;
    let answer = server.ask(&as_json, wanted).await;
    let run = answer.json()["run"].as_str().unwrap().to_owned();
    let shown = server.get(&format!("/api/v1/runs/{run}")).await.json();
    assert_eq!(shown["input"]["tick"]["date"], "2026-11-22");

    let as_form = format!("{trigger}\nContent-Type: text/plain");
    assert_eq!(server.ask(&as_form, wanted).await.status, 415);
    assert_eq!(server.ask(trigger, wanted).await.status, 415);
    for body in [
        r#"{"script": "pay"}"#,
        r#"{"script": "pay", "name": "daily", "when": 1}"#,
        "x",
    ] {
        let answer = server.ask(&as_json, body.as_bytes()).await;
        assert_eq!(
            (answer.status, answer.error_code()),
            (400, "bad_request".into())
        );
    }
    let unknown = server
        .ask(&as_json, br#"{"script": "pay", "name": "dayly"}"#)
        .await;
    assert_eq!(unknown.status, 404);
    assert!(unknown.body.contains("`pay daily`"), "{}", unknown.body);
    let runs = server.get("/api/v1/runs").await.json();
    assert_eq!(runs.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn mistakes_in_filters_are_reported_all_at_once() {
    let server = World::new().await.admin(None).await;
    let answer = server
        .get("/api/v1/runs?limit=0&state=parkt&skript=x")
        .await;
    assert_eq!(answer.status, 400);
    let message = answer.json()["error"]["message"]
        .as_str()
        .unwrap()
        .to_owned();
    for part in [
        "from 1 to 1000, not `0`",
        "did you mean `parked`?",
        "did you mean `script`?",
    ] {
        assert!(message.contains(part), "{message}");
    }
    assert_eq!(server.get("/api/v1/callbacks?state=x").await.status, 400);
    assert_eq!(
        server
            .get("/api/v1/payments?state=held&limit=1000")
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn what_is_not_there_is_404_with_its_decoded_name() {
    let server = World::new().await.admin(None).await;
    for (path, name) in [
        ("/api/v1/payments/order%2F7%20%C3%A4", "`order/7 ä`"),
        ("/api/v1/payments/order/7", "`order/7`"),
        ("/api/v1/runs/r1", "`r1`"),
        ("/api/v1/callbacks/a%3Ab", "`a:b`"),
        ("/api/v1/nothing", "/api/v1/nothing"),
    ] {
        let answer = server.get(path).await;
        assert_eq!(
            (answer.status, answer.error_code()),
            (404, "not_found".into())
        );
        assert!(answer.body.contains(name), "{}", answer.body);
    }
    let undecodable = server.get("/api/v1/payments/%ff").await;
    assert_eq!(undecodable.error_code(), "bad_request");
    let wrong = server.ask("DELETE /api/v1/runs HTTP/1.1", b"").await;
    assert_eq!(
        (wrong.status, wrong.error_code()),
        (405, "wrong_method".into())
    );
}

#[tokio::test]
async fn every_view_the_page_asks_for_answers() {
    let server = World::new().await.admin(None).await;
    let page = server.get("/").await.body;
    let schedules = server.get("/api/v1/schedules").await.json();
    assert_eq!(schedules[0]["next"].as_array().unwrap().len(), 3);
    for path in [
        "overview",
        "scripts",
        "schedules",
        "runs?limit=20",
        "payments?limit=20",
        "callbacks?limit=20",
    ] {
        assert!(page.contains(&format!("[\"{path}\"")), "{path}");
        assert_eq!(
            server.get(&format!("/api/v1/{path}")).await.status,
            200,
            "{path}"
        );
    }
    for sink in [
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "http:",
        "https:",
    ] {
        assert!(!page.contains(sink), "{sink}");
    }
}

#[tokio::test]
async fn a_request_under_way_is_answered_before_the_listener_is_gone() {
    let world = World::new().await;
    let server = world.callbacks().await;
    let body = CALLBACK.as_bytes();
    let (first, rest) = body.split_at(10);
    let head = format!(
        "POST /callbacks HTTP/1.1\r\nhost: x\r\nX-Processing-Key: key\r\nX-Processing-Signature: {}\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n",
        sign(body),
        body.len()
    );
    let mut idle = TcpStream::connect(server.addr).await.unwrap();
    let mut stream = TcpStream::connect(server.addr).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    // The daemon asks for the body: it has begun with this request.
    let mut asked = [0; 25];
    stream.read_exact(&mut asked).await.unwrap();
    assert!(asked.starts_with(b"HTTP/1.1 100 Continue"));
    server.stop.send(()).unwrap();
    assert_eq!(idle.read(&mut [0]).await.unwrap(), 0);
    assert!(TcpStream::connect(server.addr).await.is_err());
    stream.write_all(first).await.unwrap();
    stream.write_all(rest).await.unwrap();
    assert_eq!(read_answer(stream).await.status, 200);
    server.served.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_port_that_is_taken_is_explained() {
    let listener = bind(any(), "callbacks").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let error = bind(addr, "callbacks").await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "the callbacks listener cannot listen on {addr}: the port is taken, perhaps by another bursar; stop that process or change `callbacks.listen` in daemon.toml"
        )
    );
}
