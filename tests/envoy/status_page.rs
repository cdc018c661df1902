//! The status page over HTTP: who may read it, and what it may do. The tests in a browser (`tests/browser`) check what it shows.

use harness::Envoy;
use reqwest::Method;

#[tokio::test]
async fn the_page_is_served_with_a_strict_policy() {
    let envoy = Envoy::builder().env("PIXELL_ADMIN_TOKEN", "s3cret-s3cret-s3cret").start().await.unwrap();
    // Everyone who can read /stats can read it, without the token of the route API.
    for path in ["/", "/?from=bookmark"] {
        let page = envoy.routes().get(path).await.unwrap();
        assert_eq!(page.status, 200);
        assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
        assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(page.header("cache-control"), Some("no-store"));
        let policy = page.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'sha256-"), "{policy}");
        assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
        assert!(page.body.starts_with(b"<!doctype html>") && page.body.ends_with(b"</html>\n"));
    }
    let head = envoy.routes().request(Method::HEAD, "/").send().await.unwrap();
    assert_eq!((head.status().as_u16(), head.bytes().await.unwrap().len()), (200, 0));
    let post = envoy.routes().request(Method::POST, "/").send().await.unwrap();
    assert_eq!((post.status().as_u16(), post.headers()["allow"].to_str().unwrap()), (405, "GET, HEAD"));
    assert_eq!(envoy.routes().get("/index.html").await.unwrap().status, 404);
}

/// The page is not in the router's module, whose size each worker pays for.
#[test]
fn the_router_module_does_not_carry_the_page() {
    let modules = workspace::target().join("pixell");
    let holds = |module: &str| {
        let code = std::fs::read(modules.join(module)).unwrap();
        code.windows(15).any(|window| window == b"<!doctype html>")
    };
    assert!(holds("admin.wasm"));
    assert!(!holds("router.wasm"));
}
