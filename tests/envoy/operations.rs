//! docs/operations.md describes everything that exists and nothing else: its tables are compared with a running Envoy.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use harness::envoy::is_native;
use harness::proto::DEPLOYMENT_ID;
use harness::{Envoy, agents, wait};
use pixell_core::metrics::{REJECTION_REASONS, WRITE_ERRORS};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::access_log::{client, envoy_with};

pub(crate) const TEXT: &str = include_str!("../../docs/operations.md");

/// The text below this heading, up to the next heading of its level or above.
pub(crate) fn section(heading: &str) -> &'static str {
    let (_, rest) = TEXT.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no heading {heading:?}"));
    let level = heading.split(' ').next().unwrap().len();
    let end = (1..=level).filter_map(|level| rest.find(&format!("\n{} ", "#".repeat(level)))).min();
    &rest[..end.unwrap_or(rest.len())]
}

/// The cells of all table rows in a text, without the rows of headings.
fn rows(text: &'static str) -> Vec<Vec<&'static str>> {
    let lines: Vec<&str> = text.lines().collect();
    let is_rule = |line: &str| line.starts_with("| ---");
    let body = lines
        .iter()
        .enumerate()
        .filter(|(at, line)| line.starts_with('|') && !is_rule(line) && !lines.get(at + 1).is_some_and(|next| is_rule(next)));
    body.map(|(_, line)| line.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

/// The words in backticks.
fn quoted(text: &str) -> BTreeSet<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn fields(line: &Value) -> BTreeSet<String> {
    line.as_object().unwrap().keys().cloned().collect()
}

/// A full line, a brief line, and the line of a write.
async fn a_line_of_each() -> [Value; 3] {
    let agent = agents::echo::start("a").unwrap();
    let envoy = envoy_with(&[&agent]).await;
    let ask = async || client().get(envoy.data_url()).header(DEPLOYMENT_ID, "a").send().await.unwrap();
    ask().await;
    let full = envoy.logged(1, |line| line["log"] == "access").await.unwrap().remove(0);
    envoy.admin_post("/runtime_modify?pixell.access_log.full=0&pixell.access_log.brief=100").await.unwrap();
    ask().await;
    let brief = envoy.logged(2, |line| line["log"] == "access").await.unwrap().remove(1);
    let write = envoy.logged(1, |line| line["log"] == "route_api").await.unwrap().remove(0);
    [full, brief, write]
}

#[tokio::test]
async fn every_field_of_the_log_is_described_and_every_query_names_fields_that_exist() {
    let [full, brief, write] = a_line_of_each().await;
    let of_request = section("### Fields of a request");
    let described: BTreeSet<String> = rows(of_request).iter().flat_map(|row| quoted(row[0])).collect();
    assert_eq!(described, fields(&full));
    let of_brief = of_request.split("A brief line has").nth(1).unwrap();
    assert_eq!(quoted(of_brief), fields(&brief));
    let of_write = section("### Fields of a write to the route map");
    let missing: Vec<_> = fields(&write).difference(&quoted(of_write)).cloned().collect();
    assert!(missing.is_empty(), "{missing:?}");
    let unknown: Vec<_> = quoted(of_write).difference(&fields(&write)).cloned().collect();
    assert_eq!(unknown, ["null", "route_api"], "words that are not fields");

    let queries = section("### CloudWatch Logs Insights");
    let mut checked = 0;
    for query in queries.split("\n\n").filter(|block| block.starts_with("    ")) {
        let line = if query.contains("\"route_api\"") { &write } else { &full };
        for field in fields_of(query) {
            assert!(line.get(&field).is_some(), "{field} of {query}");
            checked += 1;
        }
    }
    let pattern = queries.split("`{ ").nth(1).unwrap().split(" }`").next().unwrap();
    for field in pattern.split("$.").skip(1).map(|rest| rest.split(' ').next().unwrap()) {
        assert!(full.get(field).is_some(), "{field} of {pattern}");
        checked += 1;
    }
    assert!(checked > 20, "{checked}");
}

/// The fields that a query of Logs Insights names: its words without commands, functions, values, and names that it defines itself.
fn fields_of(query: &str) -> BTreeSet<String> {
    const WORDS: [&str; 17] = [
        "filter",
        "stats",
        "sort",
        "display",
        "by",
        "as",
        "and",
        "or",
        "not",
        "like",
        "in",
        "desc",
        "asc",
        "count",
        "pct",
        "bin",
        "ispresent",
    ];
    // Values are in quotation marks or between slashes. A slash between blanks is a division.
    let bare: String = query.split('"').step_by(2).collect();
    let bare: String = bare.replace(" / ", " ").split('/').step_by(2).collect();
    let words: Vec<&str> =
        bare.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| !word.is_empty()).collect();
    let own: BTreeSet<&str> = words.windows(2).filter(|pair| pair[0] == "as").map(|pair| pair[1]).collect();
    let field =
        |word: &&&str| !WORDS.contains(*word) && !own.contains(**word) && !word.starts_with(|c: char| c.is_ascii_digit());
    words.iter().filter(field).map(|word| (*word).to_owned()).collect()
}

#[test]
fn fields_are_not_confused_with_other_words_of_a_query() {
    let query = "filter a = \"b c\" and d like /e|f/ | stats count(*) as g, pct(h, 99) / 1000 as i by j, bin(5m) | sort g desc";
    assert_eq!(fields_of(query), BTreeSet::from(["a", "d", "h", "j"].map(str::to_owned)));
}

/// The names and types of a scrape's metrics, and the labels of our metrics.
async fn scrape(envoy: &Envoy) -> (BTreeMap<String, String>, BTreeMap<String, BTreeSet<String>>) {
    let text = client().get(envoy.api_url() + "/stats/prometheus").send().await.unwrap().text().await.unwrap();
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let mut labels = BTreeMap::<_, BTreeSet<String>>::new();
    for line in text.lines().filter(|line| line.starts_with("pixell_")) {
        let (name, rest) = line.split_once('{').unwrap();
        let named = rest.split_once('}').unwrap().0.split(',').filter_map(|label| label.split_once('='));
        labels.entry(name.to_owned()).or_default().extend(named.map(|(label, _)| label.to_owned()));
    }
    (types.map(|(name, kind)| (name.to_owned(), kind.to_owned())).collect(), labels)
}

#[tokio::test]
async fn every_metric_is_described_with_its_type_and_labels() {
    let agent = agents::echo::start("a").unwrap();
    let envoy = envoy_with(&[&agent]).await;
    assert_eq!(client().get(envoy.data_url()).header(DEPLOYMENT_ID, "a").send().await.unwrap().status(), 200);
    // The image's entry point sends these when it starts.
    envoy.tell_dropped_lines(0, 0).await.unwrap();
    let section = section("## Metrics");
    let (ours, envoys): (Vec<_>, Vec<_>) = rows(section).into_iter().partition(|row| row[0].starts_with("`pixell_"));

    let (types, labels) = scrape(&envoy).await;
    let described: BTreeMap<_, _> =
        ours.iter().map(|row| (row[0].trim_matches('`'), (row[1].to_owned(), quoted(row[2])))).collect();
    let scraped = types.iter().filter(|(name, _)| name.starts_with("pixell_"));
    let scraped: BTreeMap<_, _> = scraped.map(|(name, kind)| (name.as_str(), (kind.clone(), labels[name].clone()))).collect();
    assert_eq!(described, scraped);
    assert!(ours.iter().all(|row| row[3].len() > 10), "each metric has a description");

    // A histogram appears at its first flush.
    let names = envoys.iter().flat_map(|row| quoted(row[0]));
    let names: BTreeSet<String> = names.filter(|name| !(is_native() && name.starts_with("envoy_wasm_"))).collect();
    assert!(names.len() > 10, "{names:?}");
    let all = || async {
        let (types, _) = scrape(&envoy).await;
        Ok(names.iter().all(|name| types.contains_key(name)).then_some(types))
    };
    let types = wait::until(&format!("all of {names:?}"), Duration::from_secs(20), all).await.unwrap();
    for row in envoys.iter().filter(|row| row[1].starts_with("histogram")) {
        assert_eq!(types[row[0].trim_matches('`')], "histogram");
    }
}

#[test]
fn every_reason_has_its_runbook_and_its_advice() {
    let reasons = BTreeSet::from(REJECTION_REASONS.map(str::to_owned));
    let described: BTreeSet<_> = rows(section("### Requests are rejected")).iter().flat_map(|row| quoted(row[0])).collect();
    assert_eq!(described, reasons);
    let script = include_str!("../../crates/core/src/admin/status_page/problems.js");
    let keys = |name: &str| -> BTreeSet<String> {
        let object = script.split(&format!("const {name} = {{")).nth(1).unwrap().split("\n};").next().unwrap();
        object.lines().filter_map(|line| line.trim().split_once(": ")).map(|(key, _)| key.to_owned()).collect()
    };
    assert_eq!(keys("REJECTION_ADVICE"), reasons);
    let writes = keys("WRITE_ADVICE");
    assert!(!writes.is_empty() && writes.iter().all(|code| WRITE_ERRORS.contains(&code.as_str())), "{writes:?}");
}

/// Every fact, chart, heading, column and label of the page is in the table, and every bold name of the table is on the page.
#[test]
fn every_element_of_the_status_page_is_described() {
    let page = include_str!("../../crates/core/src/admin/status_page/page.html");
    let between = |open: &str, close: &str| -> Vec<String> {
        let parts = page.split(open).skip(1).map(|part| part.split_once('>').unwrap().1);
        parts.map(|part| part.split(close).next().unwrap().trim().to_owned()).collect()
    };
    let tags =
        [("<h2", "</h2>"), ("<dt", "</dt>"), ("<figcaption", "<span"), ("<label", "</label>"), ("data-sort", "</button>")];
    let mut elements: BTreeSet<String> = tags.into_iter().flat_map(|(open, close)| between(open, close)).collect();
    // The script writes this one, beside the state.
    assert!(page.contains("id=\"as-of\""));
    elements.insert("as of".to_owned());
    let described = rows(section("## Status page"))
        .into_iter()
        .flat_map(|row| row[0].split("**").skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>());
    assert_eq!(described.collect::<BTreeSet<_>>(), elements);
}

/// The pictures show the current page.
#[tokio::test]
async fn the_pictures_show_the_current_page() {
    let images = workspace::root().join("docs/images");
    let envoy = Envoy::builder().start().await.unwrap();
    let page = envoy.routes().get("/").await.unwrap().body;
    let hash: String = Sha256::digest(&page).iter().map(|byte| format!("{byte:02x}")).collect();
    let noted = std::fs::read_to_string(images.join("status-page.sha256")).unwrap();
    assert_eq!(
        noted.trim(),
        hash,
        "the page has changed: renew the pictures with PIXELL_SCREENSHOTS=docs/images cargo xtask test browser"
    );
    let files = |directory| std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let documents: String = files(workspace::root().join("docs"))
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect();
    for image in files(images).map(|path| path.file_name().unwrap().to_string_lossy().into_owned()) {
        assert!(
            image == "status-page.sha256" || documents.contains(&format!("](images/{image})")),
            "no document shows {image}"
        );
    }
}

#[test]
fn every_variable_is_a_setting_of_the_image() {
    let known = launcher::settings::known_names();
    let known: BTreeSet<&str> = known.split(", ").collect();
    let named: BTreeSet<_> = quoted(TEXT).into_iter().filter(|word| word.starts_with("PIXELL_")).collect();
    assert!(named.len() >= 6, "{named:?}");
    assert!(named.iter().all(|name| known.contains(name.as_str())), "{named:?}");
}
