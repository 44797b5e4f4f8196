//! `bursar send FILE`: what the gateway does with a callback.

use std::path::PathBuf;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};

use super::admin_client::reachable;
use super::exchange::{PATIENCE, exchange};
use super::exit_code::{Failure, Outcome};
use super::output::print;
use super::settings::Settings;
use crate::config::Need;
use crate::domain::signature::Signer;

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// The body; its exact bytes are signed with `gateway.secret` and sent
    file: PathBuf,
    /// Where to, without TLS [default: the callback listener of this configuration]
    #[arg(long, value_parser = plain)]
    url: Option<String>,
}

fn plain(url: &str) -> Result<String, String> {
    if url.starts_with("http://") {
        Ok(url.to_owned())
    } else {
        Err("it must begin with http://; listeners of bursar have no TLS of their own".to_owned())
    }
}

pub(super) fn run(settings: &Settings, options: Options) -> Outcome {
    let Options { file, url } = options;
    let config = settings.load(Need::Gateway)?;
    let body = std::fs::read(&file)
        .map_err(|error| Failure::failed(format!("cannot read `{}`: {error}", file.display())))?;
    let url = url.unwrap_or_else(|| {
        let listen = reachable(config.callbacks.listen);
        format!("http://{listen}{}", config.callbacks.path)
    });
    let request = Request::builder()
        .method(Method::POST)
        .uri(&url)
        .header("content-type", "application/json")
        .header("x-processing-key", config.gateway.key.expose())
        .header(
            "x-processing-signature",
            Signer::new(&config.gateway.secret).sign(&body),
        )
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| Failure::usage(format!("nothing can be sent to {url}: {error}")))?;
    let answer =
        exchange(request, PATIENCE).map_err(|error| Failure::failed(format!("{url}: {error}")))?;
    let meaning = match StatusCode::from_u16(answer.status) {
        Ok(StatusCode::OK) => "taken; the gateway would not send it again",
        Ok(StatusCode::FORBIDDEN) => "refused as forged: key or secret differ from the daemon's",
        Ok(StatusCode::NOT_FOUND) => "nothing there: is `callbacks.path` right?",
        Ok(StatusCode::PAYLOAD_TOO_LARGE) => "refused: it is above `callbacks.max_body`",
        Ok(StatusCode::SERVICE_UNAVAILABLE) => "put off: the daemon cannot store it now",
        Ok(_) | Err(_) => "not taken; the gateway would send it again",
    };
    let said = format!("{} {meaning}", answer.status);
    if answer.status == 200 {
        print(&said);
        Ok(())
    } else {
        Err(Failure::failed(said))
    }
}
