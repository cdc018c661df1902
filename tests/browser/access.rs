//! Who sees what: everyone who reaches the port sees the counters. Only clients that the route API accepts see the map.

use std::net::{Ipv4Addr, UdpSocket};

use harness::Envoy;

use crate::driver::Browser;
use crate::shows;

const TOKEN: &str = "a-token-for-the-status-page";

#[tokio::test]
async fn the_map_asks_for_the_token_if_there_is_one() {
    let envoy = Envoy::builder().env("PIXELL_ADMIN_TOKEN", TOKEN).start().await.unwrap();
    envoy.routes().token(TOKEN).put_all([("a", 5000)]).await.unwrap();
    let browser = Browser::start(1200, 900, &[]).await.unwrap();
    browser.open(&envoy.api_url()).await.unwrap();
    browser.until("!document.getElementById('token-form').hidden").await.unwrap();
    // The counters are shown without it.
    browser.until("document.getElementById('route-count').innerText === '1'").await.unwrap();
    assert_eq!(browser.eval("document.getElementById('map-view').hidden").await.unwrap(), true);
    assert!(!browser.eval("document.body.innerText").await.unwrap().as_str().unwrap().contains("5000"));

    let give = async |token: &str| {
        browser.eval("document.getElementById('token').focus()").await.unwrap();
        // U+E007 is the Enter key.
        browser.press(&format!("{token}\u{e007}")).await.unwrap();
    };
    give("wrong").await;
    browser.until(&shows("map-note", "token is wrong")).await.unwrap();
    give(TOKEN).await;
    browser.until(&shows("rows", "5000")).await.unwrap();
    assert_eq!(browser.eval("document.activeElement.id").await.unwrap(), "search");
    assert_eq!(browser.eval("localStorage.length + sessionStorage.length").await.unwrap(), 0, "the token is stored nowhere");
    // One 401 without a token and one for the wrong token, instead of one every two seconds.
    let console = browser.console().await.unwrap();
    assert_eq!(console.iter().filter(|line| line.contains("401")).count(), 2, "{console:#?}");
    assert_eq!(console.len(), 2, "{console:#?}");
}

/// This machine's address on the network: the source address for packets to another machine. Nothing is sent.
fn own_address() -> Ipv4Addr {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).expect("the machine has a network besides loopback");
    match socket.local_addr().unwrap().ip() {
        std::net::IpAddr::V4(address) if !address.is_loopback() => address,
        other => panic!("{other} is not an address on a network"),
    }
}

#[tokio::test]
async fn strangers_see_the_counters_and_no_map() {
    let envoy = Envoy::builder().bind(Ipv4Addr::UNSPECIFIED).start().await.unwrap();
    envoy.routes().put_all([("secret-id", 5000)]).await.unwrap();
    let browser = Browser::start(1200, 900, &[]).await.unwrap();
    browser.open(&format!("http://{}:{}/", own_address(), envoy.api_addr().port())).await.unwrap();
    browser.until(&shows("map-note", "shown at 127.0.0.1 alone")).await.unwrap();
    browser.until("document.getElementById('route-count').innerText === '1'").await.unwrap();
    assert!(!browser.eval("document.body.innerText").await.unwrap().as_str().unwrap().contains("secret-id"));
}
