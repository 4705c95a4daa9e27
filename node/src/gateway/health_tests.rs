//! Health checks: listeners that come and go with the policy.

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::super::endpoints::Here;
use super::super::services::Service;
use super::*;

/// Status line and body of an answer; `None` when nobody listens.
async fn get(port: u16) -> Option<(String, serde_json::Value)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await.ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    assert!(head.to_lowercase().contains("x-load-balancing-endpoint-weight: "), "{head}");
    Some((head.lines().next()?.to_owned(), serde_json::from_str(body).ok()?))
}

/// Asks until somebody listens, or nobody does.
async fn until_listening(port: u16, listening: bool) -> Option<(String, serde_json::Value)> {
    loop {
        let answer = get(port).await;
        if answer.is_some() == listening {
            return answer;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn listeners_follow_the_policy_back_and_forth() {
    let port = std::net::TcpListener::bind("[::]:0").unwrap().local_addr().unwrap().port();
    let with =
        |port| Some(Services::from([("default/web".into(), Service { health_port: port, ..Service::default() })]));
    let (services, services_rx) = watch::channel(with(Some(port)));
    let (endpoints, local) = watch::channel(Some(Local::new()));
    let task = tokio::spawn(serve(services_rx, local));
    let (status, body) = until_listening(port, true).await.unwrap();
    assert_eq!(status, "HTTP/1.1 503 Service Unavailable");
    let service = json!({"namespace": "default", "name": "web"});
    assert_eq!(body, json!({"service": service, "localEndpoints": 0, "serviceProxyHealthy": true}));

    let who = |service: &str, names: &[&str]| {
        let ready = names.iter().map(|n| (*n).to_owned()).collect();
        Here { service: service.into(), ready, ..Here::default() }
    };
    let slices = [
        ("default/web-4".into(), who("default/web", &["a", "b"])),
        ("default/web-6".into(), who("default/web", &["b"])),
        ("default/other".into(), who("default/other", &["c"])),
    ];
    endpoints.send_replace(Some(slices.into()));
    let (status, body) = get(port).await.unwrap();
    assert_eq!((status.as_str(), &body["localEndpoints"]), ("HTTP/1.1 200 OK", &json!(2)));

    services.send_replace(with(None));
    until_listening(port, false).await;
    services.send_replace(with(Some(port)));
    until_listening(port, true).await.unwrap();
    task.abort();
}
