//! How the page looks, small and large, light and dark, and how it works with a keyboard and a screen reader.

use harness::{Envoy, agents};
use serde_json::json;

use crate::driver::Browser;
use crate::{ask, has_bars, has_rows, many_routes, pictures, shows};

/// The contrast of each visible text (WCAG 2.2, 1.4.3) and of each graphic (1.4.11) with its background:
/// `[minimum of texts, minimum of graphics, [everything below the minimum of WCAG], number of texts]`.
const CONTRAST: &str = r"(() => {
  const numbers = (colour) => colour.match(/[\d.]+/g).map(Number);
  const light = (colour) => {
    const [r, g, b] = numbers(colour).map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratio = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + 0.05) / (y + 0.05); };
  const ground = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (getComputedStyle(at).opacity !== '1') throw new Error(at.outerHTML);
      if ((numbers(colour)[3] ?? 1) === 1) return colour;
    }
    return 'rgb(255, 255, 255)';
  };
  const below = [], texts = [], graphics = [];
  const note = (list, least, what, a, b) => { const r = ratio(a, b); list.push(r); if (r < least) below.push(`${r.toFixed(2)} ${what} ${a} on ${b}`); };
  for (const node of document.body.querySelectorAll('*')) {
    if (!node.checkVisibility() || ['SCRIPT', 'STYLE'].includes(node.tagName)) continue;
    const style = getComputedStyle(node);
    if ([...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim())) {
      note(texts, 4.5, node.tagName + '.' + node.className + ' ' + node.textContent.slice(0, 30), style.color, ground(node));
    }
    if (node.tagName === 'INPUT') note(graphics, 3, 'input', style.borderColor, ground(node.parentElement));
  }
  const probe = document.createElementNS('http://www.w3.org/2000/svg', 'rect'), chart = document.getElementById('requests-chart');
  chart.append(probe);
  for (let series = 0; series < 6; series += 1) {
    probe.setAttribute('class', 's' + series);
    note(graphics, 3, 'series ' + series, getComputedStyle(probe).fill, ground(chart));
  }
  probe.remove();
  return [Math.min(...texts), Math.min(...graphics), below, texts.length];
})()";

async fn colours(browser: &Browser, scheme: &str) {
    let media = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
    browser.devtools("Emulation.setEmulatedMedia", media).await.unwrap();
}

async fn assert_contrast(browser: &Browser, when: &str) {
    for scheme in ["light", "dark"] {
        colours(browser, scheme).await;
        let found = browser.eval(CONTRAST).await.unwrap();
        println!("{when}, {scheme}: {}", json!([found[0], found[1], found[3]]));
        assert_eq!(found[2], json!([]), "{when}, {scheme}");
        assert!(found[3].as_u64().unwrap() > 40, "{found}");
    }
}

/// Every text is readable in both colour schemes: without problems, with problems, and when Envoy has gone.
#[tokio::test]
async fn contrast_is_enough_in_every_state() {
    let mut envoy = Envoy::builder().start().await.unwrap();
    let agent = agents::echo::start("a").unwrap();
    let mut routes = many_routes(150);
    routes["routes"]["a"] = json!({"port": agent.port()});
    envoy.routes().put_routes(&routes).await.unwrap();
    let browser = Browser::start(1200, 900, &[]).await.unwrap();
    browser.open(&envoy.api_url()).await.unwrap();
    browser.until(&has_rows(100)).await.unwrap();
    assert_contrast(&browser, "well").await;
    agent.kill();
    ask(&envoy, Some("a")).await;
    ask(&envoy, None).await;
    browser.until(&shows("problems", "missing_deployment_id")).await.unwrap();
    browser.until(&shows("problems", "connection to an agent failed")).await.unwrap();
    assert_contrast(&browser, "with problems").await;
    browser.assert_clean().await.unwrap();
    envoy.kill().unwrap();
    browser.until(&shows("problems", "Envoy does not respond")).await.unwrap();
    assert_contrast(&browser, "gone").await;
}

#[tokio::test]
async fn fits_a_phone_in_the_dark() {
    let envoy = Envoy::builder().start().await.unwrap();
    envoy.routes().put_routes(&many_routes(300)).await.unwrap();
    let browser = Browser::start(360, 1600, &[]).await.unwrap();
    colours(&browser, "dark").await;
    browser.open(&envoy.api_url()).await.unwrap();
    browser.until(&has_rows(100)).await.unwrap();
    ask(&envoy, None).await;
    browser.until(&has_bars("rejections")).await.unwrap();
    let overflow = browser.eval("document.documentElement.scrollWidth - window.innerWidth").await.unwrap();
    assert!(overflow.as_i64().unwrap() <= 0, "the page is {overflow} px wider than the phone");
    let small = browser
        .eval("[...document.querySelectorAll('input, .pager button')].filter((e) => e.offsetParent && e.offsetHeight < 40).length")
        .await
        .unwrap();
    assert_eq!(small, 0, "every control is large enough for a finger");
    let ground = "getComputedStyle(document.body).backgroundColor";
    assert_eq!(browser.eval(ground).await.unwrap(), "rgb(16, 20, 24)");
    pictures::take(&browser, &envoy, "status-page-phone-dark.png").await;
    colours(&browser, "light").await;
    assert_eq!(browser.eval(ground).await.unwrap(), "rgb(246, 247, 249)");
    browser.assert_clean().await.unwrap();
}

#[tokio::test]
async fn keyboard_and_screen_reader_find_everything() {
    let envoy = Envoy::builder().start().await.unwrap();
    envoy.routes().put_routes(&many_routes(300)).await.unwrap();
    let browser = Browser::start(1200, 900, &[]).await.unwrap();
    browser.open(&envoy.api_url()).await.unwrap();
    browser.until(&has_rows(100)).await.unwrap();
    // U+E004 is the Tab key. It reaches the skip link first, then every control in reading order.
    let mut stops = Vec::new();
    for _ in 0..11 {
        browser.press("\u{e004}").await.unwrap();
        let stop = browser.eval("document.activeElement.id || document.activeElement.innerText.trim()").await.unwrap();
        stops.push(stop.as_str().unwrap().to_owned());
        let visible =
            "(() => { const box = document.activeElement.getBoundingClientRect(); return box.width > 0 && box.left >= 0; })()";
        assert_eq!(browser.eval(visible).await.unwrap(), true, "{stops:?}");
    }
    let headings = ["Deployment id", "Port", "State", "In flight", "Failed connections", "Errors"];
    let expected: Vec<_> = ["Skip to the route map", "search"].into_iter().chain(headings).collect();
    assert_eq!(stops, [&expected[..], &["previous", "next", "/stats/prometheus"]].concat());

    // For assistive technology, every control and picture has a name, and changes are announced.
    let tree = browser.devtools("Accessibility.getFullAXTree", json!({})).await.unwrap();
    let nodes = tree["nodes"].as_array().unwrap();
    for role in ["button", "searchbox", "image", "table", "columnheader", "heading", "link", "navigation"] {
        let named: Vec<_> = nodes.iter().filter(|node| node["role"]["value"] == role && node["ignored"] != true).collect();
        assert!(!named.is_empty(), "there is no {role}");
        for node in named {
            assert!(node["name"]["value"].as_str().is_some_and(|name| !name.is_empty()), "a {role} has no name: {node}");
        }
    }
    let live = "[...document.querySelectorAll('[role=status], [role=alert]')].map((e) => e.id).join()";
    assert_eq!(browser.eval(live).await.unwrap(), "health,announcement,map-note,found,page,fleet-found");
    assert_eq!(browser.eval("document.documentElement.lang").await.unwrap(), "en");
    browser.assert_clean().await.unwrap();
}
