//! The pixell-envoy filter as an Envoy dynamic module: hooks, each of which fetches, asks the core (`pixell-core`) and applies what
//! it says.
//!
//! One shared object has the five filters, distinguished by `filter_name`: `router` (the data path, and responses that lead clients back),
//! `incoming` (the same for requests of other tasks), `retry` (the data path before each attempt to reach an agent), `hops` (before each attempt
//! to reach another task) and `admin` (the route API). All of them share the route map, which is in this process's memory.
//!
//! | module | what it is |
//! | --- | --- |
//! | `abi` | Envoy's C interface; all unsafe code |
//! | `abi_types` | its numbers |
//! | `filter` | a configuration of a filter, and a stream of it |
//! | `router`, `responses`, `admin` | what the filters do: the data path, its responses, the route API |
//! | `waits` | ends requests that wait too long for a connection |
//! | `metrics` | what is counted |
//! | `host` | a stream as the core sees it |
//! | `shared` | what all filters of the process share |
//! | `fault` | what a panic leaves behind |

pub mod abi;
pub mod abi_types;
mod admin;
mod fault;
mod filter;
mod host;
mod metrics;
mod responses;
mod router;
mod shared;
mod waits;
