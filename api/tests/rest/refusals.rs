//! What the guard lets through, and what it says to the rest.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderValue, Method, header};
use orchestrator_api::guard::Peer;
use orchestrator_api::limits::Limits;
use tower::ServiceExt;

use crate::fake::{Fake, get, request, router_within, seen, send};

#[tokio::test]
async fn only_owners_are_served() {
    for peer in [Some(Peer::Stranger), Some(Peer::Untold), Some(Peer::OneTooMany), None] {
        let service = Fake::healthy();
        for target in ["/health", "/tasks", "/nowhere"] {
            let mut request = request(Method::GET, target);
            request.extensions_mut().remove::<Peer>();
            if let Some(peer) = peer {
                request.extensions_mut().insert(peer);
            }
            let answer = send(&service, request).await;
            let status = if peer == Some(Peer::OneTooMany) { 503 } else { 403 };
            assert_eq!(answer.status, status, "{peer:?}");
            assert_eq!(answer.headers[header::CONNECTION], "close");
            assert_eq!(answer.headers.contains_key(header::RETRY_AFTER), status == 503);
            assert_eq!(answer.json()["success"], false);
        }
        assert_eq!(service.asked(), []);
    }
}

#[tokio::test]
async fn a_stranger_is_told_what_to_do() {
    let mut request = request(Method::GET, "/tasks");
    request.extensions_mut().insert(Peer::Stranger);
    insta::assert_snapshot!(send(&Fake::healthy(), request).await.shown());
}

#[tokio::test]
async fn requests_for_other_hosts_are_refused() {
    let table: [(&[&str], &str, u16); 9] = [
        (&["localhost:8080"], "/health", 200),
        (&["127.0.0.1:8080"], "http://127.0.0.1:8080/health", 200),
        (&["evil.example"], "/health", 403),
        (&["evil.example:8080"], "/health", 403),
        (&["localhost:8081"], "/health", 403),
        (&["localhost:8080"], "http://evil.example:8080/health", 403),
        (&["evil.example:8080"], "http://localhost:8080/health", 403),
        (&["localhost:8080", "localhost:8080"], "/health", 400),
        (&[], "/health", 400),
    ];
    for (hosts, target, status) in table {
        let service = Fake::healthy();
        let mut request = request(Method::GET, target);
        request.headers_mut().remove(header::HOST);
        for host in hosts {
            request.headers_mut().append(header::HOST, HeaderValue::from_static(host));
        }
        let answer = send(&service, request).await;
        assert_eq!(answer.status, status, "{hosts:?} {target}: {answer:?}");
        assert_eq!(service.asked().len(), usize::from(status == 200));
        assert_eq!(answer.json()["success"], status == 200);
    }
    let mut foreign = request(Method::GET, "/health");
    foreign.headers_mut().insert(header::HOST, HeaderValue::from_bytes(b"evil\xff").unwrap());
    assert_eq!(send(&Fake::healthy(), foreign).await.status, 403);
}

#[tokio::test]
async fn pages_of_other_sites_are_refused() {
    for (origin, status) in [
        ("http://localhost:8080", 200),
        ("http://evil.example", 403),
        ("https://localhost:8080", 403),
        ("http://localhost:3000", 403),
        ("null", 403),
    ] {
        let service = Fake::healthy();
        let mut request = request(Method::GET, "/tasks");
        request.headers_mut().insert(header::ORIGIN, HeaderValue::from_static(origin));
        let answer = send(&service, request).await;
        assert_eq!(answer.status, status, "{origin}");
        assert!(!answer.headers.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN));
        assert_eq!(service.asked().len(), usize::from(status == 200));
    }
}

#[tokio::test]
async fn large_bodies_are_not_read() {
    for (length, status) in
        [("4194304", 200), ("4194305", 413), ("99999999999999999999999999", 400), ("-1", 400)]
    {
        let service = Fake::healthy();
        let mut request = request(Method::GET, "/health");
        request.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from_static(length));
        let answer = send(&service, request).await;
        assert_eq!(answer.status, status, "{length}");
        assert_eq!(service.asked().len(), usize::from(status == 200));
        if status == 413 {
            insta::assert_snapshot!(answer.shown());
        }
    }
}

#[tokio::test]
async fn every_answer_is_private_and_is_what_it_says() {
    let service = Fake::healthy();
    for path in ["/health", "/nowhere", "/tasks?limit=0"] {
        let answer = get(&service, path).await;
        assert_eq!(answer.headers[header::CACHE_CONTROL], "no-store", "{path}");
        assert_eq!(answer.headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff", "{path}");
    }
}

#[tokio::test]
async fn too_many_requests_at_once_are_told_to_come_back() {
    let service = Fake::healthy();
    service.open.send_replace(false);
    let router = router_within(&service, Limits { requests: 1, ..Limits::default() });
    let first = tokio::spawn(router.clone().oneshot(request(Method::GET, "/health")));
    service.has_been_asked(1).await;
    let second = seen(router.clone().oneshot(request(Method::GET, "/health")).await.unwrap()).await;
    assert_eq!(second.status, 503);
    assert_eq!(second.headers[header::RETRY_AFTER], "1");
    assert!(second.json()["error"].as_str().unwrap().contains("too many requests"), "{second:?}");
    assert_eq!(service.asked().len(), 1);
    service.open.send_replace(true);
    assert_eq!(first.await.unwrap().unwrap().status(), 200);
    let third = router.oneshot(request(Method::GET, "/health")).await.unwrap();
    assert_eq!(third.status(), 200, "the first one's place is free again");
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_its_place() {
    let service = Fake::healthy();
    service.open.send_replace(false);
    let router = router_within(&service, Limits { requests: 1, ..Limits::default() });
    let gone = tokio::spawn(router.clone().oneshot(request(Method::GET, "/health")));
    service.has_been_asked(1).await;
    gone.abort();
    assert!(gone.await.unwrap_err().is_cancelled());
    service.open.send_replace(true);
    assert_eq!(router.oneshot(request(Method::GET, "/health")).await.unwrap().status(), 200);
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_does_not_answer_is_not_waited_for_for_ever() {
    let service = Fake::healthy();
    service.open.send_replace(false);
    let router = router_within(&service, Limits { answer: Duration::from_secs(30), ..Limits::default() });
    let answer = seen(router.oneshot(request(Method::GET, "/tasks")).await.unwrap()).await;
    assert_eq!(answer.status, 503);
    assert!(answer.headers.contains_key(header::RETRY_AFTER));
    assert_eq!(service.asked().len(), 1);
    assert_eq!(Arc::strong_count(&service), 1, "nothing goes on behind the answer");
}
