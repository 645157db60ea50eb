//! Which replica gets a request: deployments by weight, then the less busy of two random replicas.
//!
//! Pure: what is known of the replicas comes in, randomness too. Replicas that are unhealthy, that refused connections
//! a moment ago or that this request has tried already are passed over for better ones; when there is no better one
//! they are taken all the same, since what is known may be out of date and a refusal is certain only when it happens.

use crate::routes::{Replica, Share};

/// How good a replica looks; smaller is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Nothing speaks against it.
    Good,
    /// It is not healthy, or refused a connection a moment ago.
    Doubtful,
    /// This request has failed at it.
    Tried,
}

/// The replica to take; `None` when no deployment with a share has one. `load` is what is open at a replica, `random`
/// gives a number below its argument.
pub fn choose<'a>(
    shares: &'a [Share],
    standing: impl Fn(&Replica) -> Standing,
    load: impl Fn(&Replica) -> u32,
    mut random: impl FnMut(u32) -> u32,
) -> Option<&'a Replica> {
    if let [share] = shares
        && let [only] = share.replicas.as_slice()
    {
        return (share.weight > 0).then_some(&**only);
    }
    let candidates = |share: &'a Share| share.replicas.iter().map(|replica| &**replica);
    let best = shares
        .iter()
        .filter(|share| share.weight > 0)
        .flat_map(candidates)
        .map(&standing)
        .min()?;
    let usable = |share: &&Share| share.weight > 0 && candidates_at(share, &standing, best).next().is_some();
    let total = shares
        .iter()
        .filter(usable)
        .fold(0_u32, |sum, share| sum.saturating_add(share.weight));
    let mut at = random(total.max(1));
    let share = shares
        .iter()
        .filter(usable)
        .find(|share| match at.checked_sub(share.weight) {
            Some(rest) => {
                at = rest;
                false
            }
            None => true,
        })?;
    let count = u32::try_from(candidates_at(share, &standing, best).count()).unwrap_or(u32::MAX);
    let nth = |n: u32| candidates_at(share, &standing, best).nth(usize::try_from(n).unwrap_or_default());
    let first = random(count);
    if count < 2 {
        return nth(first);
    }
    // Another one: any of the others, each as likely.
    let second = (first + 1 + random(count - 1)) % count;
    let (first, second) = (nth(first)?, nth(second)?);
    Some(if load(second) < load(first) { second } else { first })
}

fn candidates_at<'a>(
    share: &'a Share,
    standing: &impl Fn(&Replica) -> Standing,
    wanted: Standing,
) -> impl Iterator<Item = &'a Replica> {
    share
        .replicas
        .iter()
        .map(|replica| &**replica)
        .filter(move |replica| standing(replica) == wanted)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;
    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};

    use super::*;
    use crate::routes::tests::share;

    fn picks(shares: &[Share], standing: impl Fn(&Replica) -> Standing, seed: u64) -> HashMap<u64, u32> {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut picks = HashMap::new();
        for _ in 0..10_000 {
            let replica = choose(shares, &standing, |_| 0, |below| rng.random_range(0..below)).unwrap();
            *picks.entry(replica.pool).or_default() += 1;
        }
        picks
    }

    #[test]
    fn weights_and_replicas_get_their_shares() {
        let shares = [share(3, &[1, 2, 3]), share(1, &[4]), share(0, &[5])];
        let picks = picks(&shares, |_| Standing::Good, 7);
        for pool in 1..=4 {
            assert!((2_200..2_800).contains(&picks[&pool]), "{picks:?}");
        }
        assert!(!picks.contains_key(&5));
    }

    #[test]
    fn the_less_busy_of_two_is_taken() {
        let shares = [share(1, &[1, 2])];
        let mut rng = SmallRng::seed_from_u64(1);
        for _ in 0..100 {
            let load = |replica: &Replica| if replica.pool == 1 { 5 } else { 4 };
            let chosen = choose(
                &shares,
                |_| Standing::Good,
                load,
                |below| rng.random_range(0..below),
            )
            .unwrap();
            assert_eq!(chosen.pool, 2);
        }
    }

    #[test]
    fn doubt_moves_traffic_and_never_empties_the_set() {
        let shares = [share(9, &[1, 2]), share(1, &[3])];
        let only_third = picks(
            &shares,
            |replica| {
                if replica.pool == 3 {
                    Standing::Good
                } else {
                    Standing::Doubtful
                }
            },
            3,
        );
        assert_eq!(only_third.len(), 1);
        let all = picks(&shares, |_| Standing::Tried, 3);
        assert_eq!(all.len(), 3);
        assert!(choose(&[share(0, &[1])], |_| Standing::Good, |_| 0, |_| 0).is_none());
        assert!(choose(&[], |_| Standing::Good, |_| 0, |_| 0).is_none());
    }

    proptest! {
        #[test]
        fn whatever_is_chosen_is_of_the_best(
            sizes in proptest::collection::vec((0u32..4, 0usize..5), 0..5),
            standings in proptest::collection::vec(0u8..3, 25),
            seed in any::<u64>(),
        ) {
            let mut next = 0;
            let shares: Vec<Share> = sizes.iter().map(|&(weight, size)| {
                let pools: Vec<u64> = (next..next + size as u64).collect();
                next += size as u64;
                share(weight, &pools)
            }).collect();
            let of = |replica: &Replica| [Standing::Good, Standing::Doubtful, Standing::Tried]
                [usize::from(standings[usize::try_from(replica.pool).unwrap()])];
            let mut rng = SmallRng::seed_from_u64(seed);
            let chosen = choose(&shares, of, |_| 0, |below| rng.random_range(0..below));
            let reachable = || shares.iter().filter(|s| s.weight > 0).flat_map(|s| s.replicas.iter());
            match chosen {
                None => prop_assert_eq!(reachable().count(), 0),
                Some(chosen) => {
                    let best = reachable().map(|replica| of(replica)).min().unwrap();
                    prop_assert_eq!(of(chosen), best);
                    prop_assert!(reachable().any(|replica| replica.pool == chosen.pool));
                }
            }
        }
    }
}
