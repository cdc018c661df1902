//! What each way to keep strangers out costs a request: TLS, tokens, the claim with the deployments, and a rate, each by itself.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use harness::tokens::{Algorithm, Issuer};
use harness::{certificate, wait};
use launcher::filter::Filter;
use serde_json::json;

use super::titled;
use crate::connection::Connection;
use crate::contender::{Contender, Stage, envoy};
use crate::load::{self, Load, Protocol};
use crate::relay::Relay;
use crate::results::Figure;
use crate::rounds::{self, Samples, ratios};
use crate::table::Table;
use crate::tasks::resolved;

/// How long Envoy may take to read the keys.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is switched on in an Envoy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Nothing,
    Tls,
    Token(Algorithm),
    /// Tokens, and the claim.
    Claim,
    Rate,
}

/// All Envoys, with the names of their samples over HTTP/1.1 and HTTP/2.
const PARTS: [(Part, [&str; 2]); 6] = [
    (Part::Nothing, ["nothing", "h2-nothing"]),
    (Part::Tls, ["tls", "h2-tls"]),
    (Part::Token(Algorithm::Es256), ["es256", "h2-es256"]),
    (Part::Token(Algorithm::Rs256), ["rs256", "h2-rs256"]),
    (Part::Claim, ["claim", "h2-claim"]),
    (Part::Rate, ["rate", "h2-rate"]),
];
/// The same Envoy as `nothing`, through the relay that the one with TLS is behind.
const RELAYED: [&str; 2] = ["relayed", "h2-relayed"];
const PROTOCOLS: [(Protocol, &str); 2] = [(Protocol::Http1, "http/1.1"), (Protocol::Http2, "h2")];

/// The issuers and their tokens: one for each deployment, which its claim names.
struct Clients {
    issuers: [(Algorithm, Issuer); 2],
    tokens: Vec<(Algorithm, String, String)>,
}

pub(super) async fn measure(stage: &Stage<'_>, filter: Filter, rounds: u32) -> Result<Vec<Figure>> {
    let directory = tempfile::tempdir_in(stage.scratch)?;
    let table = Table::new(20, stage.agents);
    let clients = Clients::make(directory.path(), &table)?;
    let (mut samples, mut progress) = (Samples::new(), rounds::Progress::new(rounds));
    for rounds in crate::starts(rounds) {
        let mut running = Vec::new();
        for (part, names) in PARTS {
            running.push((part, names, start(stage, filter, part, &clients, directory.path(), &table).await?));
        }
        let of = |wanted: Part| {
            let found = running.iter().find(|(part, ..)| *part == wanted);
            found.map(|(_, _, contender)| contender).context("it was started")
        };
        let (plain, tls) = (of(Part::Nothing)?, of(Part::Tls)?);
        let [(_, first), (_, second)] = PROTOCOLS;
        let ways = [(plain.address, None), (tls.address, Some(first)), (tls.address, Some(second))];
        let relay = Relay::start(directory.path(), &ways).await?;
        let [to_plain, to_tls @ ..] = relay.addresses.as_slice() else { anyhow::bail!("the relay has no ways") };

        let mut loads = Vec::new();
        for (number, (protocol, _)) in PROTOCOLS.into_iter().enumerate() {
            let mut add = |part, names: [&'static str; 2], address, contender: &Contender| {
                let name = names.get(number).copied().context("there are two protocols")?;
                let load = Load::with(protocol, address, &contender.requested, &contender.pids, |id| clients.headers(part, id));
                loads.push((name, load.with_context(|| name.to_owned())?));
                anyhow::Ok(())
            };
            for (part, names, contender) in &running {
                let address = if *part == Part::Tls { to_tls.get(number).copied() } else { Some(contender.address) };
                add(*part, *names, address.context("the relay has a way")?, contender)?;
            }
            add(Part::Nothing, RELAYED, *to_plain, plain)?;
        }
        rounds::run(&mut loads, rounds, &mut samples, &mut progress)?;
    }
    figures(filter, &samples)
}

fn figures(filter: Filter, samples: &Samples) -> Result<Vec<Figure>> {
    const RATIOS: [(&str, &str, &str); 5] = [
        ("TLS / cleartext", "tls", "relayed"),
        ("tokens (ES256) / none", "es256", "nothing"),
        ("tokens (RS256) / none", "rs256", "nothing"),
        ("tokens (ES256) and the claim / tokens alone", "claim", "es256"),
        ("a rate / none", "rate", "nothing"),
    ];
    let mut figures = Vec::new();
    for (number, protocol) in ["", ", HTTP/2"].into_iter().enumerate() {
        // The name of a part's samples over this protocol.
        let of = |part: &str| {
            let all = PARTS.into_iter().map(|(_, names)| names).chain([RELAYED]);
            let names = all.into_iter().find(|[first, _]| *first == part).context("it is in the list")?;
            names.get(number).copied().context("there are two protocols")
        };
        let none: Vec<f64> = samples.get(of("nothing")?).into_iter().flatten().map(|sample| sample.cpu).collect();
        for (what, one, other) in RATIOS {
            let values = ratios(samples, of(one)?, of(other)?, |sample| sample.cpu);
            let title = titled(filter, &format!("CPU per request{protocol}, {what}"));
            figures.push(Figure::median(title, "", values).context("nothing was measured")?);
        }
        figures.push(Figure::median("- without any of these", "us", none).context("nothing was measured")?);
    }
    Ok(figures)
}

impl Clients {
    fn make(directory: &Path, table: &Table) -> Result<Self> {
        let mut tokens = Vec::new();
        let issuers = [Algorithm::Es256, Algorithm::Rs256]
            .map(|algorithm| Issuer::new(directory, algorithm).map(|issuer| (algorithm, issuer)));
        let [first, second] = issuers;
        let issuers = [first?, second?];
        for (algorithm, issuer) in &issuers {
            for (id, _) in &table.requested {
                tokens.push((*algorithm, id.clone(), issuer.token("alice", &json!({ "deployments": [id] }))?));
            }
        }
        Ok(Self { issuers, tokens })
    }

    /// The headers of a request. All Envoys get requests with a token, so that only what they do with it differs.
    fn headers(&self, part: Part, id: &str) -> Vec<(String, String)> {
        let wanted = part.algorithm();
        let token = self.tokens.iter().find(|(algorithm, known, _)| *algorithm == wanted && known == id);
        token.map(|(.., token)| ("authorization".to_owned(), format!("Bearer {token}"))).into_iter().collect()
    }

    fn settings(&self, part: Part, directory: &Path) -> Result<Vec<(&'static str, String)>> {
        let issuer = || {
            let found = self.issuers.iter().find(|(algorithm, _)| *algorithm == part.algorithm());
            found.context("there is an issuer")?.1.settings(directory)
        };
        Ok(match part {
            Part::Nothing => Vec::new(),
            Part::Tls => {
                let (certificate, key) = certificate::self_signed(directory, 2)?;
                vec![
                    ("PIXELL_TLS_CERT_FILE", certificate.display().to_string()),
                    ("PIXELL_TLS_KEY_FILE", key.display().to_string()),
                ]
            }
            Part::Token(_) => issuer()?,
            Part::Claim => {
                let mut settings = issuer()?;
                settings.push(("PIXELL_JWT_DEPLOYMENTS_CLAIM", "deployments".to_owned()));
                settings
            }
            // No request is above it.
            Part::Rate => vec![("PIXELL_RATE_LIMIT", "1000000/s".to_owned())],
        })
    }
}

impl Part {
    /// How the tokens of its requests are signed.
    const fn algorithm(self) -> Algorithm {
        match self {
            Self::Token(algorithm) => algorithm,
            Self::Nothing | Self::Tls | Self::Claim | Self::Rate => Algorithm::Es256,
        }
    }
}

/// Starts an Envoy, and waits until it has the keys if it needs some.
async fn start(
    stage: &Stage<'_>,
    filter: Filter,
    part: Part,
    clients: &Clients,
    directory: &Path,
    table: &Table,
) -> Result<Contender> {
    let settings = resolved(&clients.settings(part, directory)?)?;
    let envoy = envoy::with_settings(stage, &settings).filter(filter).start().await?;
    envoy::push(&envoy, table).await?;
    if part != Part::Tls {
        let (id, port) = table.requested.first().context("the map is empty")?;
        let request = load::with_headers(&load::request(id, *port), &clients.headers(part, id));
        let address = envoy.data_addr();
        let serves = || async { Ok((Connection::open(address)?.exchange(&request)?.status() == 200).then_some(())) };
        wait::until("Envoy to have the keys", PATIENCE, serves).await?;
    }
    envoy::contender(stage, envoy, table.requested.clone())
}
