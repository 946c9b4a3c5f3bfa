//! Criterion's groups: each action on each backend.

use std::time::Duration;

use criterion::{BenchmarkId, Criterion};
use orchestrator_benches::backend::Backend;

use crate::FEW;
use crate::side::{Action, Side};

/// Measures the groups that the arguments of this process ask for.
pub fn run(many: usize) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(4))
        .configure_from_args();
    // A store is filled when the first one of its benchmarks is to be run, and kept for the others.
    let mut sides: Vec<((Backend, usize), Side)> = Vec::new();
    for action in Action::ALL {
        let sizes = if action == Action::Cycle { vec![FEW, many] } else { vec![many] };
        let mut group = criterion.benchmark_group(action.name());
        for &backend in Backend::ALL {
            for &stored in &sizes {
                group.bench_function(BenchmarkId::new(backend.name(), stored), |bencher| {
                    let wanted = (backend, stored);
                    if !sides.iter().any(|(known, _)| *known == wanted) {
                        sides.push((wanted, runtime.block_on(Side::filled(backend, stored))));
                    }
                    let (_, side) = sides.iter_mut().find(|(known, _)| *known == wanted).unwrap();
                    bencher.iter_custom(|times| runtime.block_on(side.repeat(action, times)));
                });
            }
        }
        group.finish();
    }
    for (_, side) in sides {
        runtime.block_on(side.close());
    }
    criterion.final_summary();
}
