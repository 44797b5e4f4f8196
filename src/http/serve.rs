//! Serves a router on a listener until it is told to stop.
//!
//! Every connection has deadlines and there are only so many of them, so that a client that sends
//! its request letter by letter costs one connection for a while and nothing else.

use std::io;
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::telemetry::Telemetry;

/// The most connections at once; more wait in the system's queue.
const MOST_CONNECTIONS: usize = 1_024;

/// How long the head of a request may take, and how long a connection may be idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// How long to wait when the system has no connection to give.
const BREATH: Duration = Duration::from_millis(100);

/// Accepts connections until `stop` resolves; then answers the requests that are being worked on
/// and closes every connection. Takes as long as those requests take: whoever calls it sets the
/// deadline. Dropping it cuts all connections.
///
/// # Errors
/// When the listener cannot be used any more.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let stopping = watch::Sender::new(false);
    let mut connections = JoinSet::new();
    let mut stop = pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < MOST_CONNECTIONS => {
                match accepted {
                    Ok((stream, _)) => {
                        connections.spawn(connection(router.clone(), stream, stopping.subscribe()));
                    }
                    Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Err(error),
                    // Everything else passes: the client has gone, or file descriptors are short.
                    Err(error) => {
                        Telemetry::connection_not_accepted(&error);
                        tokio::time::sleep(BREATH).await;
                    }
                }
            }
        }
    }
    drop(listener);
    stopping.send_replace(true);
    while connections.join_next().await.is_some() {}
    Ok(())
}

async fn connection(router: Router, stream: TcpStream, mut stopping: watch::Receiver<bool>) {
    stream.set_nodelay(true).ok();
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = pin!(connection);
    // A connection ends with an error when the client goes away or is too slow: both are usual.
    tokio::select! {
        ended = connection.as_mut() => {
            ended.ok();
            return;
        }
        told = stopping.wait_for(|stopping| *stopping) => drop(told),
    }
    connection.as_mut().graceful_shutdown();
    connection.await.ok();
}
