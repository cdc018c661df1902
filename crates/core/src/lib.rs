//! The core of the pixell-envoy filter: decides where a request goes, and what a call of the route API does to the route map.
//!
//! It builds on any target and knows no host. A host implements small traits: shared data and a change signal ([`store`]), a request
//! ([`data_path::RequestHost`]), a response ([`responses::ResponseHost`]), metrics ([`admin::tally::Metrics`]).
//!
//! | module | what it is |
//! | --- | --- |
//! | [`deployment_id`] | the key a client sends |
//! | [`addressing`] | how a request names its agent: by a header, the path or the host |
//! | [`route`], [`endpoint`] | where an id leads: ports and a state |
//! | [`table`] | byte strings by id, searched in place |
//! | [`store`] | publishing and reading maps through shared data |
//! | [`routes`] | the route map, what a write does to it, its form as JSON |
//! | [`fleet`] | the fleet map: which other tasks serve which ids, and what a write does to it |
//! | [`cidr`] | a network in CIDR notation |
//! | [`decision`] | from a request and the maps to the decision: forward or reject |
//! | [`hop`] | which other task gets a request, and its way there |
//! | [`claim`] | which deployments a client's token allows it to call |
//! | [`timestamp`] | a time to the second, as text |
//! | [`upstream`] | how the chosen port is handed to Envoy |
//! | [`waiting`] | requests that may be waiting for a connection |
//! | [`clients`] | what each client address holds, and connections that have sent nothing |
//! | [`data_path`] | the data path for any host: verdicts, and what a rejection looks like |
//! | [`responses`] | what is changed in responses, so that they lead the client back: Location, cookies, agent cards |
//! | [`rejection`] | every response that the filter makes instead of forwarding |
//! | [`filter_state`] | names of the notes that filters leave with a request |
//! | [`metrics`] | names and labels of what is counted |
//! | [`problem`] | the error document of both roles |
//! | [`json`], [`fields`] | JSON text to values, duplicate keys kept apart; the members of an object, read strictly |
//! | [`unfinished`] | bodies that are still arriving, bounded together |
//! | [`config`] | plugin configuration |
//! | [`admin`] | the route API as a pure function: request to response |

pub mod addressing;
pub mod admin;
pub mod cidr;
pub mod claim;
pub mod clients;
pub mod config;
pub mod data_path;
pub mod decision;
pub mod deployment_id;
pub mod endpoint;
pub mod fields;
pub mod filter_state;
pub mod fleet;
mod fnv;
pub mod hop;
pub mod json;
pub mod metrics;
pub mod problem;
pub mod rejection;
pub mod responses;
pub mod route;
pub mod routes;
pub mod store;
pub mod table;
pub mod timestamp;
pub mod unfinished;
pub mod upstream;
pub mod waiting;

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    /// None of them is a host. Each is in every module, so a further one has to be worth its bytes.
    const DEPENDENCIES: [&str; 5] = ["base64", "serde", "serde_json", "sha2", "subtle"];

    #[test]
    fn the_manifest_names_no_host() {
        let manifest = include_str!("../Cargo.toml");
        let section = manifest.split("\n[").find_map(|section| section.strip_prefix("dependencies]\n"));
        let lines = section.expect("the manifest has dependencies").lines().filter(|line| !line.starts_with('#'));
        let names: Vec<_> = lines.filter_map(|line| line.split_once('=')).map(|(name, _)| name.trim()).collect();
        assert_eq!(names, DEPENDENCIES);
    }
}
