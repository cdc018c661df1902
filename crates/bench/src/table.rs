//! A route table of a given size, and those of its ids that the load requests.

use std::collections::HashSet;

/// The largest possible table: a port serves one id, and there are 65,535 ports.
pub const LARGEST: usize = 65_535;

/// Ids with their ports. Some of the ports have running agents.
#[derive(Clone, Debug)]
pub struct Table {
    /// All routes.
    pub routes: Vec<(String, u16)>,
    /// The routes to running agents, spread evenly over the table. Only these are requested.
    pub requested: Vec<(String, u16)>,
}

impl Table {
    /// A table of `size` routes (1 to [`LARGEST`]). One route leads to each of the `agents`, as far as there are enough routes.
    #[must_use]
    pub fn new(size: usize, agents: &[u16]) -> Self {
        let requested_count = agents.len().min(size);
        let taken: HashSet<u16> = agents.iter().copied().collect();
        // The highest ports first, so that small tables have only ports that are allowed by default.
        let mut others = (1..=u16::MAX).rev().filter(|port| !taken.contains(port));
        let mut requested = Vec::with_capacity(requested_count);
        let mut routes = Vec::with_capacity(size);
        for index in 0..size {
            let place = (2 * requested.len() + 1) * size / (2 * requested_count.max(1));
            let agent = if index == place { agents.get(requested.len()) } else { None };
            match agent {
                Some(port) => {
                    requested.push((id(index), *port));
                    routes.push((id(index), *port));
                }
                None => routes.extend(others.next().map(|port| (id(index), port))),
            }
        }
        Self { routes, requested }
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
    fn ids_and_ports_are_unique_and_the_requested_ones_spread() {
        let agents: Vec<u16> = (40_000..40_016).collect();
        for size in [1, 2, 20, 1000, LARGEST] {
            let table = Table::new(size, &agents);
            let ids: HashSet<_> = table.routes.iter().map(|(id, _)| id).collect();
            let ports: HashSet<_> = table.routes.iter().map(|(_, port)| port).collect();
            assert_eq!((ids.len(), ports.len(), table.requested.len()), (size, size, size.min(16)), "{size}");
            assert!(table.requested.iter().all(|route| table.routes.contains(route)));
        }
        let places: Vec<_> =
            Table::new(160, &agents).requested.iter().map(|(requested, _)| (0..160).find(|n| id(*n) == *requested)).collect();
        assert_eq!((places.first(), places.last()), (Some(&Some(5)), Some(&Some(155))));
    }
}
