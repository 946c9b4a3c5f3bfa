//! Other users of the machine. Only root can connect as one of them: a run as anybody else says that
//! these were not tested, and has the tests of the table's lines.
#![cfg(target_os = "linux")]

use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::time::Duration;

use orchestrator_api::limits::Limits;
use orchestrator_protocol::socket::user_id;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::process::Command;

use crate::connections::Served;
use crate::fake::{Fake, PATIENCE};

/// A user who is neither root nor whoever runs the tests.
const NOBODY: u32 = 65_534;

fn can_be_nobody() -> bool {
    let is_root = user_id() == 0;
    if !is_root {
        println!("NOT TESTED: only root can connect as another user");
    }
    is_root
}

/// A program of another user's that connects, sends `request`, and goes on with the connection as its
/// descriptor 3.
fn as_nobody(address: SocketAddr, request: &str, goes_on: &str) -> Command {
    let script = format!(r#"exec 3<>"/dev/tcp/$1/$2" && printf '%s' "$3" >&3 && {goes_on}"#);
    let mut command = std::process::Command::new("bash");
    command
        .args(["-c", &script, "client", &address.ip().to_string(), &address.port().to_string(), request])
        .current_dir("/")
        .stdin(Stdio::null())
        .gid(NOBODY)
        .uid(NOBODY);
    let mut command = Command::from(command);
    command.kill_on_drop(true);
    command
}

#[tokio::test]
async fn another_users_process_is_refused() {
    if !can_be_nobody() {
        return;
    }
    let service = Fake::healthy();
    let served = Served::start(&service, Limits::default()).await;
    let client = as_nobody(served.address, &served.get("/tasks"), "cat <&3").output();
    let output = tokio::time::timeout(PATIENCE, client).await.unwrap().unwrap();
    let answer = String::from_utf8(output.stdout).unwrap();
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer} {}", String::from_utf8_lossy(&output.stderr));
    assert!(answer.contains("connection: close\r\n"), "{answer}");
    assert!(answer.contains("the engine's own user"), "{answer}");
    assert_eq!(service.asked(), []);
    served.end().await;
}

#[tokio::test]
async fn another_users_process_that_is_gone_does_not_pass_for_root() {
    if !can_be_nobody() {
        return;
    }
    let service = Fake::healthy();
    // The kernel takes the connection in. When it is judged the request is there, its process is gone, and
    // of the socket the addresses alone are left.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // What follows the first request hides the end of the connection from whoever reads it.
    let request = format!("GET /tasks HTTP/1.1\r\nHost: {address}\r\n\r\n").repeat(2);
    let client = as_nobody(address, &request, "exec 3>&-").status();
    assert!(tokio::time::timeout(PATIENCE, client).await.unwrap().unwrap().success());
    tokio::time::timeout(PATIENCE, shown_as_roots(address)).await.unwrap();
    let served = Served::on(listener, &service, Limits::default());
    let answer = served.talk(&served.get_last("/health")).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    served.end().await;
    assert_eq!(service.asked().len(), 1, "only the owner's question: {:?}", service.asked());
}

/// Waits until the kernel has let go of the far end of a connection to `address` (state 05, FIN-WAIT-2)
/// and shows it with user 0.
async fn shown_as_roots(address: SocketAddr) {
    let remote = format!(":{:04X}", address.port());
    let mut looks = tokio::time::interval(Duration::from_millis(5));
    loop {
        looks.tick().await;
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let is_far_end = |line: &str| {
            let fields: Vec<_> = line.split_ascii_whitespace().collect();
            fields[2].ends_with(&remote) && fields[3] == "05" && fields[7] == "0"
        };
        if table.lines().skip(1).any(is_far_end) {
            return;
        }
    }
}

#[tokio::test]
async fn strangers_take_no_owners_place() {
    if !can_be_nobody() {
        return;
    }
    let service = Fake::healthy();
    let served = Served::start(&service, Limits { connections: 1, refusals: 1, ..Limits::default() }).await;
    // The first says nothing, and is kept to be told no when it does.
    let mut first =
        as_nobody(served.address, "", "echo connected && cat <&3").stdout(Stdio::piped()).spawn().unwrap();
    let mut word = [0; 10];
    let said = first.stdout.as_mut().unwrap().read_exact(&mut word);
    tokio::time::timeout(PATIENCE, said).await.unwrap().unwrap();
    // One of the two is closed without a word, whichever the engine looks at last.
    let mut second = as_nobody(served.address, "", "cat <&3").stdout(Stdio::piped()).spawn().unwrap();
    let closed = async {
        tokio::select! {
            first = first.wait() => first,
            second = second.wait() => second,
        }
    };
    assert!(tokio::time::timeout(PATIENCE, closed).await.unwrap().unwrap().success());
    let answer = served.talk(&served.get_last("/health")).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    served.end().await;
}
