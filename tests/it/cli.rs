//! The command line through the real binary.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use tempfile::TempDir;

const CALLBACK: &str = "tests/it/callbacks/withdrawal-confirmed.json";

/// The binary in a folder and an environment of its own.
fn bursar(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bursar"));
    command.args(arguments).current_dir(folder).env_clear();
    command
}

fn run(folder: &Path, arguments: &[&str]) -> Output {
    bursar(folder, arguments).output().unwrap()
}

/// Exit code, standard output, standard error.
fn told(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (
        output.status.code().unwrap(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

/// A port that nobody listens on: it was just given back.
fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

/// A server that gives the same answer to one request, and the request it got.
fn answers_once(answer: &'static str) -> (u16, std::thread::JoinHandle<String>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let request = read_request(&stream);
        (&stream).write_all(answer.as_bytes()).unwrap();
        request
    });
    (port, serving)
}

fn read_request(stream: &TcpStream) -> String {
    let mut reader = BufReader::new(stream);
    let mut request = String::new();
    while !request.ends_with("\r\n\r\n") {
        assert_ne!(reader.read_line(&mut request).unwrap(), 0);
    }
    let length = request.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.parse::<usize>().unwrap())
    });
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).unwrap();
    request.push_str(std::str::from_utf8(&body).unwrap());
    request
}

fn json_answer(status: &str, body: &str) -> &'static str {
    let text = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    text.leak()
}

#[test]
fn what_makes_no_sense_is_a_usage_error_with_a_suggestion() {
    let folder = folder(&[]);
    for (arguments, expected) in [
        (&["chekc"][..], "'check'"),
        (&["payments", "lst"], "'list'"),
        (&["trigger", "pay", "daily", "--at", "noon"], "noon"),
        (&["runs", "list", "--limit", "0"], "1..=1000"),
        (&["simulate", "--faults", "[{\"fault\":\"fire\"}]"], "fire"),
        (&["call", "withdrw"], "did you mean `withdraw`?"),
        (&["call", "ping", "{"], "EOF"),
        (&["send", "f", "--url", "https://shop.example"], "http://"),
        (&[], "Usage"),
    ] {
        let (code, out, err) = told(&run(folder.path(), arguments));
        assert_eq!((code, out.as_str()), (2, ""), "{arguments:?}: {err}");
        assert!(err.contains(expected), "{arguments:?}: {err}");
    }
    let (code, out, _) = told(&run(folder.path(), &["--help"]));
    assert_eq!(code, 0);
    assert!(out.contains("Exit codes"), "{out}");
}

#[test]
fn mistakes_in_the_configuration_are_all_told_and_nothing_is_done() {
    let folder = folder(&[(
        "bad.toml",
        "[gateway]\ntimeuot = \"30s\"\nmax_in_flight = 0\n",
    )]);
    for command in [
        &["run"][..],
        &["check"],
        &["runs", "list"],
        &["store", "verify"],
    ] {
        let arguments = [command, &["--config", "bad.toml"]].concat();
        let (code, out, err) = told(&run(folder.path(), &arguments));
        assert_eq!((code, out.as_str()), (64, ""), "{command:?}: {err}");
        for expected in ["bad.toml:2:1", "did you mean `timeout`?", "max_in_flight"] {
            assert!(err.contains(expected), "{command:?}: {err}");
        }
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    let (code, _, err) = told(&run(folder.path(), &["run"]));
    assert_eq!(code, 64);
    assert!(err.contains("BURSAR_GATEWAY_KEY"), "{err}");
}

#[test]
fn a_good_folder_is_shown_with_its_next_firings() {
    let folder = folder(&[
        ("daemon.toml", "[secrets]\nSHOP = \"env:SHOP_TOKEN\"\n"),
        (
            "scripts/pay.rhai",
            "//! Pays every row.\nschedule(\"daily\", \"0 9 * * *\", |tick| { http::get(\"https://shop.example\", #{ headers: #{ a: secret(\"SHOP\") } }); });\non(\"withdrawal.*\", |event| {});\n",
        ),
        ("scripts/lib/x.rhai", "fn twice(x) { x * 2 }\n"),
    ]);
    let (code, out, err) = told(&run(folder.path(), &["check"]));
    assert_eq!(code, 0, "{err}");
    assert!(
        err.contains("warning:") && err.contains("SHOP_TOKEN"),
        "{err}"
    );
    let mut lines = out.lines();
    assert_eq!(lines.next(), Some("lib/x.rhai"));
    assert_eq!(lines.next(), Some("pay.rhai  Pays every row."));
    assert_eq!(lines.next(), Some("  daily: 0 9 * * * (UTC)"));
    for _ in 0..3 {
        let firing = lines.next().unwrap();
        assert!(firing.ends_with(" 09:00:00 UTC"), "{firing}");
    }
    assert_eq!(lines.next(), Some("  withdrawal.*: on withdrawal.*"));
    assert_eq!(
        lines.next(),
        Some("scripts: 2 scripts, 2 handlers, no mistakes")
    );
}

#[test]
fn every_mistake_in_a_bad_folder_is_shown() {
    let folder = folder(&[
        (
            "scripts/a.rhai",
            "schedule(\"x\", \"61 * * * *\", |tick| {});\n",
        ),
        (
            "scripts/b.rhai",
            "on(\"a.b\", |event| { secret(\"NONE\"); nothing(1); });\n",
        ),
    ]);
    let (code, out, err) = told(&run(folder.path(), &["check"]));
    assert_eq!((code, out.as_str()), (64, ""));
    for expected in ["a.rhai:1", "b.rhai:1", "NONE", "nothing"] {
        assert!(err.contains(expected), "{expected} in {err}");
    }
}

#[test]
fn without_a_daemon_every_command_that_needs_one_says_so() {
    let config = format!("[admin]\nlisten = \"127.0.0.1:{}\"\n", free_port());
    let folder = folder(&[("daemon.toml", &config)]);
    for command in [
        &["runs", "list"][..],
        &["runs", "show", "r1"],
        &["payments", "list", "--json"],
        &["payments", "show", "p"],
        &["callbacks", "list"],
        &["callbacks", "show", "c"],
        &["schedules", "list"],
        &["scripts", "list"],
        &["trigger", "pay", "daily"],
    ] {
        let (code, out, err) = told(&run(folder.path(), command));
        assert_eq!((code, out.as_str()), (1, ""), "{command:?}");
        assert!(err.contains("not running at 127.0.0.1:"), "{err}");
        assert!(err.contains("`bursar run`"), "{err}");
    }
}

#[test]
fn a_daemon_is_asked_with_the_token_and_its_answer_is_shown() {
    let payment = r#"[{"foreign_id": "order/7", "kind": "withdraw", "status": "held", "amount": 0.10, "currency": "BTC", "created_at": "2026-11-22T09:00:00.000Z", "error": null}]"#;
    let ask = |arguments: &[&str], answer: &'static str| {
        let (port, serving) = answers_once(answer);
        let config = format!("[admin]\nlisten = \"127.0.0.1:{port}\"\n");
        let folder = folder(&[("daemon.toml", &config)]);
        let mut command = bursar(folder.path(), arguments);
        let output = command.env("BURSAR_ADMIN_TOKEN", "t0ken").output().unwrap();
        (serving.join().unwrap(), told(&output))
    };
    let arguments = ["payments", "list", "--state", "held", "--limit", "5"];
    let (request, (code, out, err)) = ask(&arguments, json_answer("200 OK", payment));
    assert_eq!(code, 0, "{err}");
    assert!(request.starts_with("GET /api/v1/payments?limit=5&state=held HTTP/1.1\r\n"));
    assert!(
        request.contains("authorization: Bearer t0ken\r\n"),
        "{request}"
    );
    assert!(
        out.contains("2026-11-22 09:00:00  order/7     withdraw  0.10 BTC  held"),
        "{out}"
    );

    let (_, (_, out, _)) = ask(
        &["payments", "list", "--json"],
        json_answer("200 OK", payment),
    );
    assert!(out.contains("\"amount\": 0.10"), "{out}");

    let (request, (code, out, _)) = ask(
        &[
            "trigger",
            "pay.rhai",
            "daily",
            "--at",
            "2026-11-22T10:00:00+01:00",
        ],
        json_answer("200 OK", r#"{"run": "r0"}"#),
    );
    assert_eq!((code, out.contains("bursar runs show r0")), (0, true));
    assert!(
        request.starts_with("POST /api/v1/trigger HTTP/1.1\r\n"),
        "{request}"
    );
    assert!(
        request.ends_with(r#"{"at":"2026-11-22T09:00:00Z","name":"daily","script":"pay"}"#),
        "{request}"
    );

    let unknown = r#"{"error": {"code": "not_found", "message": "there is no run `r1`"}}"#;
    let (_, (code, _, err)) = ask(
        &["runs", "show", "r1"],
        json_answer("404 Not Found", unknown),
    );
    assert_eq!((code, err.as_str()), (1, "error: there is no run `r1`\n"));

    let (_, (code, _, err)) = ask(
        &["scripts", "list"],
        json_answer("401 Unauthorized", unknown),
    );
    assert_eq!(code, 1);
    assert!(err.contains("`admin.token`"), "{err}");

    let (_, (code, _, err)) = ask(&["scripts", "list"], json_answer("200 OK", "<html>"));
    assert_eq!(code, 1);
    assert!(err.contains("not a bursar daemon"), "{err}");
}

#[test]
fn a_callback_is_sent_signed_byte_by_byte() {
    let body = fs::read_to_string(CALLBACK).unwrap();
    let send = |answer| {
        let (port, serving) = answers_once(answer);
        let config = format!("[callbacks]\nlisten = \"0.0.0.0:{port}\"\npath = \"/hook\"\n");
        let folder = folder(&[("daemon.toml", &config), ("callback.json", &body)]);
        let mut command = bursar(folder.path(), &["send", "callback.json"]);
        command.env("BURSAR_GATEWAY_KEY", "key");
        command.env("BURSAR_GATEWAY_SECRET", "AbCdEfG123456");
        let told = told(&command.output().unwrap());
        (serving.join().unwrap(), told)
    };
    let (request, (code, out, err)) = send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    assert_eq!((code, out.starts_with("200 ")), (0, true), "{err}");
    assert!(request.starts_with("POST /hook HTTP/1.1\r\n"), "{request}");
    assert!(request.ends_with(&format!("\r\n\r\n{body}")), "{request}");
    let secret = bursar::domain::secret::Secret::new("AbCdEfG123456");
    let signature = bursar::domain::signature::Signer::new(&secret).sign(body.as_bytes());
    assert!(request.contains(&format!("x-processing-signature: {signature}\r\n")));
    let (_, (code, out, err)) = send("HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n");
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains("403 refused as forged"), "{err}");
}

#[test]
fn a_store_is_verified_without_a_daemon() {
    let folder = folder(&[]);
    let (code, _, err) = told(&run(folder.path(), &["store", "verify"]));
    assert_eq!(code, 1);
    assert!(err.contains("cannot find a store in `state`"), "{err}");

    let (made, path) = (folder.path().join("made"), folder.path().join("state"));
    let options = bursar::store::Options::default();
    let telemetry = bursar::telemetry::Telemetry::default();
    drop(bursar::store::Store::open(&made, &options, &telemetry).unwrap());
    // A process that another test is just starting may still have inherited the lock, so this
    // goes on with a copy.
    let copied = Command::new("cp").arg("-r").args([&made, &path]).status();
    assert!(copied.unwrap().success());
    let (code, out, err) = told(&run(folder.path(), &["store", "verify"]));
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("damage              0"), "{out}");
    let (_, out, _) = told(&run(folder.path(), &["store", "verify", "--json"]));
    assert!(out.contains("\"damage\": []"), "{out}");

    fs::remove_dir_all(path.join("journal")).unwrap();
    let (code, _, err) = told(&run(folder.path(), &["store", "verify"]));
    assert_eq!(code, 65, "{err}");
    assert!(err.contains("bursar restore DIR"), "{err}");
}

/// A process that ends with the test, if not before.
struct Running(Child);

impl Running {
    fn terminate(&self) {
        let id = self.0.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &id])
                .status()
                .unwrap()
                .success()
        );
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended already when the test went well.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn the_simulator_answers_calls_from_the_shell() {
    let folder = folder(&[]);
    let arguments = [
        "simulate",
        "--listen",
        "127.0.0.1:0",
        "--settle-after",
        "1ms",
    ];
    let mut command = bursar(folder.path(), &arguments);
    let mut simulator = Running(command.stdout(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(simulator.0.stdout.take().unwrap()).lines();
    let base = lines.find_map(|line| {
        let line = line.unwrap();
        let base = line.trim().strip_prefix("base_url = \"")?;
        Some(base.trim_end_matches('"').to_owned())
    });
    let base = base.unwrap();
    let call = |arguments: &[&str]| {
        let arguments = [&["call"], arguments].concat();
        let mut command = bursar(folder.path(), &arguments);
        command.env("BURSAR_GATEWAY_KEY", "simulator-key");
        command.env("BURSAR_GATEWAY_SECRET", "simulator-secret");
        command.env("BURSAR__GATEWAY__BASE_URL", &base);
        told(&command.output().unwrap())
    };
    let (code, out, err) = call(&["list_accounts"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("\"currency\": \"BTC\""), "{out}");

    let (code, _, err) = call(&["withdraw", r#"{"amount": "x", "adress": "a"}"#]);
    assert_eq!(code, 2);
    for field in ["amount", "adress", "foreign_id", "currency"] {
        assert!(err.contains(&format!("`{field}`")), "{field} in {err}");
    }
    let address = r#"{"foreign_id": "c1", "currency": "BTC", "end_user_reference": "c1"}"#;
    let (code, _, err) = call(&["take_address", address]);
    assert_eq!((code, err.contains("--yes")), (2, true), "{err}");
    let (code, _, err) = call(&["take_address", address, "--yes"]);
    let expected = "error: the gateway refused it with 400:\n  `sender_type` The sender type field is required.\n";
    assert_eq!((code, err.as_str()), (1, expected));

    let exchange = r#"{"foreign_id": "e1", "sender_currency": "BTC", "receiver_currency": "EUR", "sender_amount": "1"}"#;
    let (code, _, err) = call(&["exchange_now", exchange]);
    assert_eq!((code, err.contains("moves money")), (2, true), "{err}");
    let (code, _, err) = call(&["exchange_now", exchange, "--yes"]);
    assert_eq!((code, err.contains("does not record")), (0, true), "{err}");

    let (code, _, err) = call(&["transaction_info", r#"{"foreign_id": "none"}"#]);
    assert_eq!(
        (code, err.contains("refused it with 404")),
        (1, true),
        "{err}"
    );

    simulator.terminate();
    assert!(simulator.0.wait().unwrap().success());
}

#[test]
fn the_daemon_ends_in_good_order_when_it_is_told_to() {
    let listen = |port| {
        format!(
            "[callbacks]\nlisten = \"127.0.0.1:{port}\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[gateway]\nbase_url = \"http://127.0.0.1:9/api/v2\"\n"
        )
    };
    let folder = folder(&[
        ("daemon.toml", &listen(0)),
        ("scripts/a.rhai", "on(\"deposit.confirmed\", |event| {});\n"),
    ]);
    let start = || {
        let mut command = bursar(folder.path(), &["run"]);
        command.env("BURSAR_GATEWAY_KEY", "key");
        command.env("BURSAR_GATEWAY_SECRET", "secret");
        command
    };
    let mut daemon = Running(start().stdout(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(daemon.0.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| {
        line.unwrap()
            .starts_with("bursar runs: callbacks at 127.0.0.1:")
    }));
    daemon.terminate();
    assert!(daemon.0.wait().unwrap().success());

    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    fs::write(folder.path().join("daemon.toml"), listen(port)).unwrap();
    let (code, _, err) = told(&start().output().unwrap());
    assert_eq!(code, 1, "{err}");
    assert!(
        err.contains("change `callbacks.listen` in daemon.toml"),
        "{err}"
    );
}
