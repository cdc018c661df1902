//! A route table of a given size, and which of its ids the load asks for.

use std::collections::HashSet;

/// The largest table there can be: a port serves one id, and there are 65,535 ports.
pub const LARGEST: usize = 65_535;

/// Ids with their ports; some of them lead to agents that are there.
#[derive(Clone, Debug)]
pub struct Table {
    /// All routes.
    pub routes: Vec<(String, u16)>,
    /// The routes that lead to running agents, spread evenly over the table.
    pub asked: Vec<(String, u16)>,
}

impl Table {
    /// A table of `size` routes (1 to [`LARGEST`]), of which as many as there are `agents`, or all, lead to one of them.
    #[must_use]
    pub fn new(size: usize, agents: &[u16]) -> Self {
        let asked_count = agents.len().min(size);
        let taken: HashSet<u16> = agents.iter().copied().collect();
        // From above, so that small tables stay within the ports that are allowed by default.
        let mut others = (1..=u16::MAX).rev().filter(|port| !taken.contains(port));
        let mut asked = Vec::with_capacity(asked_count);
        let mut routes = Vec::with_capacity(size);
        for index in 0..size {
            let place = (2 * asked.len() + 1) * size / (2 * asked_count.max(1));
            let agent = if index == place { agents.get(asked.len()) } else { None };
            match agent {
                Some(port) => {
                    asked.push((id(index), *port));
                    routes.push((id(index), *port));
                }
                None => routes.extend(others.next().map(|port| (id(index), port))),
            }
        }
        Self { routes, asked }
    }
}

/// The id of the route number `index`: the form of a UUID, the same in every run.
#[must_use]
pub fn id(index: usize) -> String {
    let (high, low) = (scatter(2 * index as u64), scatter(2 * index as u64 + 1));
    format!(
        "{:08x}-{:04x}-4{:03x}-a{:03x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        high & 0xfff,
        low >> 48 & 0xfff,
        low & 0xffff_ffff_ffff
    )
}

/// The finalizer of SplitMix64: every input bit moves every output bit.
const fn scatter(number: u64) -> u64 {
    let mut state = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_ports_are_unique_and_the_asked_ones_spread() {
        let agents: Vec<u16> = (40_000..40_016).collect();
        for size in [1, 2, 20, 1000, LARGEST] {
            let table = Table::new(size, &agents);
            let ids: HashSet<_> = table.routes.iter().map(|(id, _)| id).collect();
            let ports: HashSet<_> = table.routes.iter().map(|(_, port)| port).collect();
            assert_eq!((ids.len(), ports.len(), table.asked.len()), (size, size, size.min(16)), "{size}");
            assert!(table.asked.iter().all(|route| table.routes.contains(route)));
        }
        let places: Vec<_> =
            Table::new(160, &agents).asked.iter().map(|(asked, _)| (0..160).find(|n| id(*n) == *asked)).collect();
        assert_eq!((places.first(), places.last()), (Some(&Some(5)), Some(&Some(155))));
    }
}
