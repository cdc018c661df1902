//! Properties of what is written into responses: the judge of URLs agrees with the crate `url`, which follows the standard of browsers, and
//! whatever is written leads back.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "this is how a test fails")]

use pixell_core::addressing::prefix::PathPrefix;
use pixell_core::addressing::{Addressing, Named, Parts, Wanted, stripped};
use pixell_core::endpoint::EndpointName;
use pixell_core::responses::origins::ExternalOrigins;
use pixell_core::responses::url::{Authority, Target, without_dot_segments};
use pixell_core::responses::way::{Note, Reached};
use pixell_core::route::{Route, StoredRoute};
use proptest::prelude::*;
use url::{Host, Url};

fn urls() -> impl Strategy<Value = String> {
    let scheme = prop_oneof![4 => Just("http://"), 2 => Just("HTTPS://"), 2 => Just(""), 1 => Just("http:"), 1 => Just("//")];
    let user = prop_oneof![8 => Just(""), 1 => Just("u@"), 1 => Just("c.test@"), 1 => Just("c.test\\@")];
    let host = prop_oneof![
        4 => "localhost|LocalHost|127[.]0[.]0[.]1|127[.]1|0[.]0[.]0[.]0|0x7f[.]1|0177[.]0[.]0[.]1|\\[::1\\]|\\[::ffff:127[.]0[.]0[.]1\\]|c[.]test|other[.]test",
        1 => "[a-z0-9.%\\\\@:\\[\\]\u{ad}-]{0,12}",
    ];
    let port = prop_oneof![Just(""), Just(":80"), Just(":443"), Just(":1001"), Just(":"), Just(":65536"), Just(":0")];
    let path = prop_oneof!["(/([.]{1,3}|%2e%2E|[a-z]{0,3})){0,5}([?#][a-z/.]{0,5})?", "[\t -~]{0,12}", ".{0,6}"];
    prop_oneof![
        4 => (scheme, user, host, port, path).prop_map(|(scheme, user, host, port, path)| format!("{scheme}{user}{host}{port}{path}")),
        1 => "[/\\\\\t a-c:@.?#]{0,10}",
        1 => any::<String>(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn the_judge_of_urls_agrees_with_browsers(text in urls()) {
        let base = Url::parse("http://base.test:7/agents/x/a2a/y").unwrap();
        let Ok(url) = base.join(&text) else { return Ok(()) };
        match Target::of(&text) {
            // It stays at the base's origin, at this path.
            Target::Path(path) => {
                prop_assert_eq!(url.origin(), base.origin());
                prop_assert!(url.username().is_empty());
                let written = Url::parse(&format!("http://base.test:7{}", without_dot_segments(path))).unwrap();
                prop_assert_eq!(written, url);
            }
            Target::Absolute { authority, port, rest, origin } => {
                prop_assert_eq!(url.port_or_known_default(), Some(port));
                prop_assert!(url.username().is_empty() && url.password().is_none());
                prop_assert_eq!(format!("{origin}{rest}"), text.as_str());
                if authority.is_this_machine() {
                    let is_here = match url.host().unwrap() {
                        Host::Domain(name) => name == "localhost",
                        Host::Ipv4(address) => address.is_loopback() || address.is_unspecified(),
                        Host::Ipv6(address) => match address.to_ipv4_mapped() {
                            Some(mapped) => mapped.is_loopback() || mapped.is_unspecified(),
                            None => address.is_loopback() || address.is_unspecified(),
                        },
                    };
                    prop_assert!(is_here);
                }
                if authority.is(&Authority { host: "c.test", port: authority.port }) {
                    prop_assert_eq!(url.host_str(), Some("c.test"));
                }
                let written = Url::parse(&format!("http://base.test:7{}", without_dot_segments(rest))).unwrap();
                prop_assert_eq!((written.path(), written.query(), written.fragment()), (url.path(), url.query(), url.fragment()));
            }
            Target::Foreign => {
                // Nothing that is plainly the agent's is left alone.
                let is_plain = text.starts_with('/') && !text.starts_with("//") && text.bytes().all(|byte| byte.is_ascii_graphic());
                prop_assert!(!is_plain || text.starts_with("/\\"), "{}", text);
            }
        }
    }

    #[test]
    fn whatever_is_written_leads_back(
        prefix in prop_oneof![Just("/agents/x"), Just("/agents/x/a2a"), Just("/agents/x/api"), Just("/agents/x/ui"), Just("/agents/x/-/rest"), Just("")],
        served in 1001_u16..1004,
        port in 1001_u16..1005,
        endpoints in prop::sample::subsequence(vec![(EndpointName::REST, 1002), (EndpointName::UI, 1003)], 0..3),
        path in "(/(agents|x|y|a2a|api|ui|-|rest|[.]{1,3}|%2e|[a-z;=%]{0,3})){0,7}([?][a-z/.]{0,5})?(#[a-z/?]{0,5})?",
    ) {
        let addressing = Addressing { prefixes: PathPrefix::defaults(), host_suffix: Some(".h.test".to_owned()) };
        let route = Route { endpoints: endpoints.into_iter().collect(), ..Route::active(1001) };
        let bytes = route.to_bytes();
        let stored = StoredRoute::parse(&bytes).unwrap();
        let authority = if prefix.is_empty() { "x.h.test" } else { "c.test" };
        let requested = format!("{prefix}/");
        let note = Note { port: served, is_card: false, is_https: false, is_prefix_alone: false, authority: authority.as_bytes(), path: requested.as_bytes(), route: stored };
        let reached = Reached::of(&note, &addressing, &ExternalOrigins::default()).unwrap();
        let Some(back) = reached.back(&path, port, &addressing) else {
            // Only what no endpoint serves has no way back.
            prop_assert!(!route.ports().any(|own| own == port));
            return Ok(());
        };
        // As a client sends it: without the fragment, and without dot segments.
        let url = Url::parse(&format!("http://{authority}{back}")).unwrap();
        let wanted = Url::parse(&format!("http://{authority}{path}")).unwrap();
        let sent = &url[url::Position::BeforePath..url::Position::AfterQuery];
        prop_assert_eq!(url.fragment(), wanted.fragment());
        let meant = &wanted[url::Position::BeforePath..url::Position::AfterQuery];
        let named = |target: &str| -> Option<(Vec<u8>, u16)> {
            let (wanted, rest) = match addressing.find(&Parts { header: None, path: target.as_bytes(), authority: authority.as_bytes() }) {
                Named::ByPath { id: b"x", wanted, rest, strip: true, .. } => (wanted, stripped(rest)),
                Named::ByHost { id: b"x" } => (Wanted::Default, target.as_bytes().to_vec()),
                _ => return None,
            };
            let port = match wanted {
                Wanted::Exactly(name) => stored.endpoint(EndpointName::parse(name).ok()?)?,
                Wanted::FirstOf(names) => names.iter().find_map(|name| stored.endpoint(*name))?,
                Wanted::Default => stored.endpoint(EndpointName::REST).unwrap_or(1001),
            };
            Some((rest, port))
        };
        // A path that names the agent already stays as it is.
        if meant.starts_with("/agents/x") && meant[9..].chars().next().is_none_or(|next| next == '/' || next == '?') {
            prop_assert_eq!(sent, meant);
        } else {
            prop_assert_eq!(named(sent), Some((meant.as_bytes().to_vec(), port)), "{} of {}", back, path);
        }
    }
}
