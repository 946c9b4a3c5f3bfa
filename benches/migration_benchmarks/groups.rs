//! Criterion's groups: moving few records, and inserting them.

use std::time::Duration;

use criterion::{Criterion, SamplingMode, Throughput};
use orchestrator_benches::backend::Backend;
use tokio::runtime::Runtime;

use crate::moves::{Source, insert_into, records};

/// How many records are moved.
const RECORDS: usize = 1_000;

/// Measures the groups that the arguments of this process ask for.
pub fn run(runtime: &Runtime) {
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    let records = runtime.block_on(records(RECORDS));
    for &to in Backend::ALL {
        let mut group = criterion.benchmark_group(format!("to {}", to.name()));
        group.sampling_mode(SamplingMode::Flat);
        group.throughput(Throughput::Elements(RECORDS as u64));
        group.bench_function("insert", |bencher| {
            bencher.iter_custom(|times| {
                let inserts = async || {
                    let mut taken = Duration::ZERO;
                    for _ in 0..times {
                        taken += insert_into(to, &records).await;
                    }
                    taken
                };
                runtime.block_on(inserts())
            });
        });
        for &from in Backend::ALL {
            // Filled when it is known that this one is to be run.
            let mut source = None;
            group.bench_function(format!("from {}", from.name()), |bencher| {
                let source = &*source.get_or_insert_with(|| runtime.block_on(Source::filled(from, &records)));
                bencher.iter_custom(|times| {
                    let moves = async || {
                        let mut taken = Duration::ZERO;
                        for _ in 0..times {
                            taken += source.move_to(to).await;
                        }
                        taken
                    };
                    runtime.block_on(moves())
                });
            });
            if let Some(source) = source {
                runtime.block_on(source.close());
            }
        }
        group.finish();
    }
    criterion.final_summary();
}
