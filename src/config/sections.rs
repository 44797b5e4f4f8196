//! Which key has which grammar and which range. The only place that turns keys into the structs.

use std::collections::BTreeMap;
use std::time::Duration;

use super::reader::Reader;
use super::refusal::Refusal;
use super::{
    Admin, Callbacks, Config, Gateway, History, Limits, Log, LogFormat, Need, Scripts, ScriptsHttp,
    Store, base_url, callback_path, choice, duration, listen, origin, policy, size,
};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Reads every section, whatever mistakes there are: they are in the reader afterwards.
pub fn read(reader: &mut Reader<'_>, need: Need) -> Config {
    let config = Config {
        gateway: gateway(reader, need),
        callbacks: callbacks(reader),
        scripts: scripts(reader),
        store: store(reader),
        admin: admin(reader, need),
        policy: policy::read(reader),
        history: history(reader),
        secrets: reader
            .secret_names()
            .into_iter()
            .map(|name| {
                let secret = reader.secret(&format!("secrets.{name}"), need.script_secrets());
                (name, secret)
            })
            .collect::<BTreeMap<_, _>>(),
        log: log(reader),
        absent_secrets: std::mem::take(&mut reader.absent),
        reread: None,
    };
    reader.two_listeners(config.callbacks.listen, config.admin.listen);
    config
}

fn gateway(reader: &mut Reader<'_>, need: Need) -> Gateway {
    Gateway {
        base_url: reader.text("gateway.base_url", base_url::parse),
        key: reader.secret("gateway.key", need.gateway()),
        secret: reader.secret("gateway.secret", need.gateway()),
        timeout: reader.text("gateway.timeout", |text| {
            duration::parse(text, &(Duration::from_secs(1)..=Duration::from_mins(10)))
        }),
        max_in_flight: reader.integer("gateway.max_in_flight", &(1..=256)),
        resend_unknown: reader.boolean("gateway.resend_unknown", Ok),
        unknown_after: reader.text("gateway.unknown_after", |text| {
            duration::parse(
                text,
                &(Duration::from_mins(1)..=Duration::from_hours(30 * 24)),
            )
        }),
        balance_check_every: reader.text("gateway.balance_check_every", |text| {
            let range = Duration::from_mins(1)..=Duration::from_hours(24);
            duration::parse(text, &(Duration::ZERO..=Duration::ZERO))
                .or_else(|_| duration::parse(text, &range))
                .map_err(|refusal| refusal.help("\"0s\" switches it off"))
        }),
        sweep_every: reader.text("gateway.sweep_every", |text| {
            duration::parse(text, &(Duration::from_mins(1)..=Duration::from_hours(24)))
        }),
    }
}

fn callbacks(reader: &mut Reader<'_>) -> Callbacks {
    Callbacks {
        listen: reader.text("callbacks.listen", listen::parse),
        path: reader.text("callbacks.path", callback_path::parse),
        max_body: reader.text("callbacks.max_body", |text| {
            size::parse(text, &(KIB..=16 * MIB))
        }),
    }
}

fn scripts(reader: &mut Reader<'_>) -> Scripts {
    Scripts {
        dir: reader.path("scripts.dir"),
        data_dir: reader.path("scripts.data_dir"),
        http: ScriptsHttp {
            allow: reader.list("scripts.http.allow", origin::parse),
            timeout: reader.text("scripts.http.timeout", |text| {
                duration::parse(
                    text,
                    &(Duration::from_millis(100)..=Duration::from_mins(10)),
                )
            }),
            max_response: reader.text("scripts.http.max_response", |text| {
                size::parse(text, &(KIB..=64 * MIB))
            }),
        },
        limits: limits(reader),
    }
}

fn limits(reader: &mut Reader<'_>) -> Limits {
    Limits {
        operations: reader.integer("scripts.limits.operations", &(10_000..=10_000_000_000)),
        // Deeper calls overflow an 8 MB stack in unoptimised builds, which would end the process.
        call_depth: reader.integer("scripts.limits.call_depth", &(8..=64)),
        string_size: reader.text("scripts.limits.string_size", |text| {
            size::parse(text, &(KIB..=256 * MIB)).and_then(|bytes| {
                usize::try_from(bytes)
                    .map_err(|_| Refusal::new(format!("`{text}` is more than memory can hold")))
            })
        }),
        array_size: reader.integer("scripts.limits.array_size", &(100..=1_000_000)),
        map_size: reader.integer("scripts.limits.map_size", &(100..=1_000_000)),
        timeout: reader.text("scripts.limits.timeout", |text| {
            duration::parse(text, &(Duration::from_secs(1)..=Duration::from_hours(24)))
        }),
        concurrent_runs: reader.integer("scripts.limits.concurrent_runs", &(1..=2_000)),
        concurrent_runs_per_script: reader
            .integer("scripts.limits.concurrent_runs_per_script", &(1..=2_000)),
        catch_up_per_second: reader.integer("scripts.limits.catch_up_per_second", &(1..=1_000)),
    }
}

fn store(reader: &mut Reader<'_>) -> Store {
    Store {
        path: reader.path("store.path"),
        cache: reader.text("store.cache", |text| size::parse(text, &(MIB..=64 * GIB))),
    }
}

fn admin(reader: &mut Reader<'_>, need: Need) -> Admin {
    let listen = reader.text("admin.listen", listen::parse);
    let token = reader.token(listen, need);
    let users = reader.users(token.as_ref(), need);
    Admin {
        listen,
        token,
        users,
    }
}

fn history(reader: &mut Reader<'_>) -> History {
    let day = Duration::from_hours(24);
    History {
        keep: reader.text("history.keep", |text| {
            duration::parse(text, &(day..=day.saturating_mul(3650)))
        }),
        keep_most: reader.integer("history.keep_most", &(1_000..=100_000_000)),
    }
}

fn log(reader: &mut Reader<'_>) -> Log {
    Log {
        format: reader.text("log.format", |text| {
            choice::parse(
                text,
                &[("text", LogFormat::Text), ("json", LogFormat::Json)],
            )
        }),
        level: reader.text("log.level", |text| {
            choice::parse(
                text,
                &[
                    ("error", tracing::Level::ERROR),
                    ("warn", tracing::Level::WARN),
                    ("info", tracing::Level::INFO),
                    ("debug", tracing::Level::DEBUG),
                    ("trace", tracing::Level::TRACE),
                ],
            )
        }),
    }
}
