//! What it costs to decide whether a document may be executed: a usual one and one near the limits, seen before and not.

#![expect(clippy::unwrap_used, reason = "a benchmark that meets the unexpected stops")]

use std::{fmt::Write, hint::black_box};

use async_graphql::parser::parse_query;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use zerostate::{
    config::{Config, Limits},
    graphql,
    transport::guard::Guard,
};

const USUAL: &str = include_str!("../web/src/graphiql/examples/01-floor.graphql");

/// A document with as much in it as the guard lets through: a fragment for every field.
fn large(limits: &Limits) -> String {
    let guard = Guard::new(limits.clone());
    let (mut text, mut fragments) = (String::from("query Large($first: Int) {\n"), String::new());
    let mut fitting = String::new();
    for number in 0..1_000 {
        writeln!(text, "  a{number}: auctions(first: $first) {{ nodes {{ ...f{number} }} }}").unwrap();
        writeln!(fragments, "fragment f{number} on Auction {{ id status budget requester {{ displayName }} }}")
            .unwrap();
        let document = format!("{text}}}\n{fragments}");
        if guard.check(&document).is_err() {
            break;
        }
        fitting = document;
    }
    assert!(fitting.len() > USUAL.len());
    fitting
}

fn guard(criterion: &mut Criterion) {
    let limits = Config::in_folder(std::path::Path::new(".")).limits;
    let sdl = graphql::sdl();
    let with = |limits: &Limits| Guard::new(limits.clone()).over(&sdl).unwrap();
    let remembering = with(&limits);
    let forgetful = with(&Limits { document_cache_bytes: 0, ..limits.clone() });
    let large = large(&limits);
    for (name, text) in [("usual", USUAL), ("large", &large)] {
        let mut group = criterion.benchmark_group(format!("document, {name}"));
        group.throughput(Throughput::Bytes(u64::try_from(text.len()).unwrap()));
        group.bench_function("the parser alone", |bencher| bencher.iter(|| parse_query(black_box(text)).unwrap()));
        group.bench_function("guard, not seen before", |bencher| {
            bencher.iter(|| forgetful.check(black_box(text)).unwrap());
        });
        group.bench_function("guard, seen before", |bencher| {
            bencher.iter(|| remembering.check(black_box(text)).unwrap());
        });
        group.finish();
    }
    // What is refused must be refused quickly.
    let deep = "[".repeat(60_000);
    criterion.bench_function("document, refused for its brackets", |bencher| {
        bencher.iter(|| forgetful.check(black_box(&deep)).unwrap_err());
    });
}

criterion_group!(benches, guard);
criterion_main!(benches);
