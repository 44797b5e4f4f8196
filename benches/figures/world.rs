//! A daemon and a simulated gateway to measure.

use std::collections::BTreeMap;
use std::sync::Arc;

use bursar::config::{Config, File, Need, resolve};
use bursar::daemon::Daemon;
use bursar::domain::clock::SystemClock;
use bursar::domain::secret::Secret;
use bursar::domain::signature::Signer;
use bursar::simulator::{self, Options, Simulator};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// The account of every measurement.
pub const KEY: &str = "simulator-key";
const SECRET: &str = "simulator-secret";

pub struct World {
    /// Removed with everything in it when the world ends.
    pub folder: TempDir,
    pub simulator: Simulator,
    pub daemon: Daemon,
}

/// A runtime with a thread per core, as the daemon has.
pub fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// Starts both, with one script.
pub async fn start(script: &str, options: Options) -> World {
    start_with(script, "", options).await
}

/// The same, with further lines of configuration.
pub async fn start_with(script: &str, more: &str, options: Options) -> World {
    let folder = tempfile::tempdir().unwrap();
    for name in ["scripts", "data"] {
        std::fs::create_dir(folder.path().join(name)).unwrap();
    }
    std::fs::write(folder.path().join("scripts/bench.rhai"), script).unwrap();
    let simulator = simulator::start(options).await.unwrap();
    let config = config(&folder, &format!("{}{more}", toml(&simulator.base_url())));
    let daemon = Daemon::start(config, Arc::new(SystemClock)).await.unwrap();
    let url = format!("http://{}/callbacks", daemon.callbacks_addr());
    simulator.control().set_callback_url(Some(url));
    World {
        folder,
        simulator,
        daemon,
    }
}

/// The configuration file's text.
pub fn toml(base_url: &str) -> String {
    format!(
        "gateway.base_url = \"{base_url}\"\ngateway.key = \"env:KEY\"\ngateway.secret = \"env:SECRET\"\ncallbacks.listen = \"127.0.0.1:0\"\nadmin.listen = \"127.0.0.1:0\"\n"
    )
}

/// The configuration in a folder.
pub fn config(folder: &TempDir, text: &str) -> Config {
    let file = File {
        name: "daemon.toml",
        text,
        folder: folder.path(),
    };
    let environment = BTreeMap::from([
        ("KEY".to_owned(), KEY.to_owned()),
        ("SECRET".to_owned(), SECRET.to_owned()),
    ]);
    resolve(Some(file), &environment, Need::Everything).unwrap()
}

/// Signs as the gateway does.
pub fn signer() -> Signer {
    Signer::new(&Secret::new(SECRET))
}

/// The body of a deposit's callback, about 1 KB, unique by `id`.
pub fn deposit(id: u64) -> String {
    format!(
        r#"{{"id":{id},"end_user_reference":"12345","type":"deposit","crypto_address":{{"id":381711,"currency":"BTC","address":"2N9zXNdiT8ucZp7zZSrucqYGCD6xYF8F3di","tag":null,"foreign_id":"customer-{}"}},"currency_sent":{{"currency":"BTC","amount":"0.01000000"}},"currency_received":{{"currency":"BTC","amount":"0.01000000","amount_minus_fee":"0.00992000"}},"transactions":[{{"id":714680,"currency":"BTC","transaction_type":"blockchain","type":"deposit","address":"2N9zXNdiT8ucZp7zZSrucqYGCD6xYF8F3di","tag":null,"amount":"0.01000000","txid":"998c4d9bb7145aafd88658b292f41fe05973c217f7adcd6052bcafe2309e7e02","riskscore":"0.5","confirmations":"3"}}],"fees":[{{"type":"deposit","currency":"BTC","amount":"0.00008000"}}],"error":"","status":"confirmed"}}"#,
        id % 1000
    )
}
