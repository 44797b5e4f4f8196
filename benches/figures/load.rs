//! A client that posts as fast as it is answered, over a number of connections: on a thread and a
//! runtime of its own, as a client elsewhere would be.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::world::{KEY, deposit, signer};

pub struct Outcome {
    pub count: usize,
    pub per_second: f64,
    pub p50: Duration,
    pub p99: Duration,
}

impl Outcome {
    /// From the latencies of all requests and the time they took together.
    pub fn of(mut latencies: Vec<Duration>, took: Duration) -> Self {
        latencies.sort_unstable();
        let at = |share: usize| latencies[(latencies.len() - 1) * share / 100];
        Self {
            count: latencies.len(),
            per_second: latencies.len() as f64 / took.as_secs_f64(),
            p50: at(50),
            p99: at(99),
        }
    }
}

/// Posts signed callbacks, each another one, over `connections` for `length`.
pub fn post_callbacks(to: SocketAddr, connections: usize, length: Duration) -> Outcome {
    let client = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(post(to, connections, length))
    });
    client.join().unwrap()
}

async fn post(to: SocketAddr, connections: usize, length: Duration) -> Outcome {
    let next = Arc::new(AtomicU64::new(1));
    let begin = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..connections {
        let next = Arc::clone(&next);
        tasks.spawn(async move { connection(to, &next, begin + length).await });
    }
    let latencies: Vec<Duration> = tasks.join_all().await.into_iter().flatten().collect();
    Outcome::of(latencies, begin.elapsed())
}

async fn connection(to: SocketAddr, next: &AtomicU64, until: Instant) -> Vec<Duration> {
    let signer = signer();
    let mut stream = TcpStream::connect(to).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let mut answer = vec![0; 4096];
    let mut latencies = Vec::new();
    while Instant::now() < until {
        let body = deposit(next.fetch_add(1, Ordering::Relaxed));
        let request = format!(
            "POST /callbacks HTTP/1.1\r\nhost: bursar\r\ncontent-type: application/json\r\nx-processing-key: {KEY}\r\nx-processing-signature: {}\r\ncontent-length: {}\r\n\r\n{body}",
            signer.sign(body.as_bytes()),
            body.len()
        );
        let sent = Instant::now();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut length = 0;
        while !answer[..length].windows(4).any(|end| end == b"\r\n\r\n") {
            let read = stream.read(&mut answer[length..]).await.unwrap();
            assert!(read > 0, "the server closed the connection");
            length += read;
        }
        assert!(
            answer.starts_with(b"HTTP/1.1 200"),
            "every callback is taken"
        );
        latencies.push(sent.elapsed());
    }
    latencies
}

/// The middle one of some figures.
pub fn middle(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
