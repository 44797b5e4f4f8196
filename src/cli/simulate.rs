//! `bursar simulate`: the gateway simulator on its own.

use std::net::SocketAddr;
use std::time::Duration;

use super::admin_client::reachable;
use super::exit_code::{Failure, Outcome, with_causes};
use super::output::print;
use super::settings::Settings;
use super::stop::Stop;
use crate::config::Need;
use crate::domain::duration;
use crate::simulator::{self, Faults, Simulator};

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8090")]
    listen: SocketAddr,
    /// The public key that requests must carry
    #[arg(long, default_value = "simulator-key")]
    key: String,
    /// The secret that signs requests and callbacks
    #[arg(long, default_value = "simulator-secret")]
    secret: String,
    /// Where callbacks go [default: the callback listener of this configuration]
    #[arg(long, value_name = "URL")]
    callback_url: Option<String>,
    /// Decides everything that looks random
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How much faster its clock runs: 60 makes a minute of every second
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    speed: u32,
    /// How long every request takes at least
    #[arg(long, value_name = "DURATION", default_value = "0ms", value_parser = duration::parse)]
    latency: Duration,
    /// How long operations take to their final status
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = duration::parse)]
    settle_after: Duration,
    /// What goes wrong, such as '[{"fault":"drop_answer","operation":"withdrawal","times":1}]'
    #[arg(long, value_name = "JSON", default_value = "[]", value_parser = faults)]
    faults: Faults,
}

fn faults(text: &str) -> Result<Faults, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

pub(super) fn run(settings: &Settings, options: Options) -> Outcome {
    let callback_url = if let Some(url) = options.callback_url {
        url
    } else {
        let callbacks = settings.load(Need::Nothing)?.callbacks;
        format!("http://{}{}", reachable(callbacks.listen), callbacks.path)
    };
    let told = simulator::Options {
        listen: options.listen,
        key: options.key.clone(),
        secret: options.secret.clone(),
        callback_url: Some(callback_url.clone()),
        seed: options.seed,
        speed: options.speed,
        latency: options.latency,
        settle_after: Some(options.settle_after),
        faults: options.faults,
        ..simulator::Options::default()
    };
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("the runtime cannot be started: {error}")))?
        .block_on(async {
            let stop = Stop::new()?;
            let simulator = simulator::start(told)
                .await
                .map_err(|error| Failure::failed(with_causes(&error)))?;
            print(&greeting(
                &simulator,
                &callback_url,
                &options.key,
                &options.secret,
            ));
            stop.asked().await;
            simulator.stop().await;
            Ok(())
        })
}

fn greeting(simulator: &Simulator, callback_url: &str, key: &str, secret: &str) -> String {
    format!(
        "\
The simulated gateway is at {base}; its callbacks go to {callback_url}.

In daemon.toml:

  [gateway]
  base_url = \"{base}\"

In the environment of the daemon:

  BURSAR_GATEWAY_KEY={key}
  BURSAR_GATEWAY_SECRET={secret}

What it executed is at http://{addr}/simulator/executions. Ctrl-C ends it and forgets everything.",
        base = simulator.base_url(),
        addr = simulator.addr(),
    )
}
