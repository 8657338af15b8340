//! Metrics with typed labels. The series of every combination are made at the start and kept, so that recording is an index and an
//! atomic addition, and a scrape shows each of them at zero before anything happened.

use std::{collections::BTreeMap, marker::PhantomData};

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, core::Collector,
};

use super::label::Label;

/// What is told of a metric beside its type and its labels.
pub(super) struct Spec {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    /// When it is recorded, for the reference.
    pub(super) when: &'static str,
    /// Labels that have one value: the asset, the version.
    pub(super) fixed: &'static [(&'static str, &'static str)],
    /// The bounds of a histogram.
    pub(super) buckets: &'static [f64],
}

impl Spec {
    pub(super) const fn new(name: &'static str, help: &'static str, when: &'static str) -> Self {
        Self { name, help, when, fixed: &[], buckets: &[] }
    }

    /// A metric of credits, which are the one asset there is.
    pub(super) const fn of_credits(self) -> Self {
        self.with(&[("asset", "credits")])
    }

    pub(super) const fn with(self, fixed: &'static [(&'static str, &'static str)]) -> Self {
        Self { fixed, ..self }
    }

    pub(super) const fn in_buckets(self, buckets: &'static [f64]) -> Self {
        Self { buckets, ..self }
    }

    fn opts(&self) -> Opts {
        self.fixed.iter().fold(Opts::new(self.name, self.help), |opts, (label, value)| opts.const_label(*label, *value))
    }

    fn histogram(&self) -> HistogramOpts {
        let opts = HistogramOpts::new(self.name, self.help).buckets(self.buckets.to_vec());
        self.fixed.iter().fold(opts, |opts, (label, value)| opts.const_label(*label, *value))
    }
}

/// Something that can be declared as a metric.
pub(super) trait Metric: Sized {
    /// The type as Prometheus names it.
    const TYPE: &'static str;

    /// Makes it in a registry, with every series.
    fn make(registry: &Registry, spec: &Spec) -> prometheus::Result<Self>;

    /// Its labels with their values.
    fn labels() -> Vec<(&'static str, Vec<&'static str>)> {
        Vec::new()
    }
}

fn register<C: Collector + Clone + 'static>(registry: &Registry, metric: C) -> prometheus::Result<C> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

/// A family of metrics of one kind that differ in labels.
pub(super) trait Family: Metric + Clone {
    type All: Collector + Clone + 'static;

    fn family(spec: &Spec, labels: &[&str]) -> prometheus::Result<Self::All>;

    fn child(all: &Self::All, values: &[&str]) -> Self;
}

/// Declares what a metric is made of: the type, its family, what both are made from and what Prometheus names it.
macro_rules! kinds {
    ($($kind:ident, $family:ident, $opts:ident, $make:ident, $name:literal;)+) => {$(
        impl Metric for $kind {
            const TYPE: &'static str = $name;

            fn make(registry: &Registry, spec: &Spec) -> prometheus::Result<Self> {
                register(registry, $kind::$make(spec.$opts())?)
            }
        }

        impl Family for $kind {
            type All = $family;

            fn family(spec: &Spec, labels: &[&str]) -> prometheus::Result<$family> {
                $family::new(spec.$opts(), labels)
            }

            fn child(all: &$family, values: &[&str]) -> Self {
                all.with_label_values(values)
            }
        }
    )+};
}

kinds! {
    IntCounter, IntCounterVec, opts, with_opts, "counter";
    IntGauge, IntGaugeVec, opts, with_opts, "gauge";
    Gauge, GaugeVec, opts, with_opts, "gauge";
    Histogram, HistogramVec, histogram, with_opts, "histogram";
}

/// Metrics by one label.
#[derive(Debug)]
pub(super) struct Of<M, L> {
    series: Vec<M>,
    label: PhantomData<L>,
}

impl<M: Family, L: Label> Metric for Of<M, L> {
    const TYPE: &'static str = M::TYPE;

    fn make(registry: &Registry, spec: &Spec) -> prometheus::Result<Self> {
        let all = register(registry, M::family(spec, &[L::NAME])?)?;
        Ok(Self { series: L::VALUES.iter().map(|value| M::child(&all, &[value])).collect(), label: PhantomData })
    }

    fn labels() -> Vec<(&'static str, Vec<&'static str>)> {
        vec![(L::NAME, L::VALUES.to_vec())]
    }
}

impl<M, L: Label> Of<M, L> {
    #[expect(clippy::indexing_slicing, reason = "there is a series for each value of the label")]
    pub(super) fn at(&self, value: L) -> &M {
        &self.series[value.index()]
    }
}

/// Metrics by two labels.
#[derive(Debug)]
pub(super) struct Of2<M, A, B> {
    series: Vec<Of<M, B>>,
    label: PhantomData<A>,
}

impl<M: Family, A: Label, B: Label> Metric for Of2<M, A, B> {
    const TYPE: &'static str = M::TYPE;

    fn make(registry: &Registry, spec: &Spec) -> prometheus::Result<Self> {
        let all = register(registry, M::family(spec, &[A::NAME, B::NAME])?)?;
        let row = |first: &&str| Of {
            series: B::VALUES.iter().map(|second| M::child(&all, &[first, second])).collect(),
            label: PhantomData,
        };
        Ok(Self { series: A::VALUES.iter().map(row).collect(), label: PhantomData })
    }

    fn labels() -> Vec<(&'static str, Vec<&'static str>)> {
        vec![(A::NAME, A::VALUES.to_vec()), (B::NAME, B::VALUES.to_vec())]
    }
}

impl<M, A: Label, B: Label> Of2<M, A, B> {
    #[expect(clippy::indexing_slicing, reason = "there is a series for each pair of values")]
    pub(super) fn at(&self, first: A, second: B) -> &M {
        self.series[first.index()].at(second)
    }
}

/// Gauges by the name of a check of the books, which the ledger knows.
#[derive(Debug)]
pub(super) struct OfCheck(BTreeMap<&'static str, IntGauge>);

impl Metric for OfCheck {
    const TYPE: &'static str = "gauge";

    fn make(registry: &Registry, spec: &Spec) -> prometheus::Result<Self> {
        let all = register(registry, IntGauge::family(spec, &["check"])?)?;
        Ok(Self(crate::ledger::names().map(|name| (name, IntGauge::child(&all, &[name]))).collect()))
    }

    fn labels() -> Vec<(&'static str, Vec<&'static str>)> {
        vec![("check", crate::ledger::names().collect())]
    }
}

impl OfCheck {
    pub(super) fn at(&self, name: &str) -> Option<&IntGauge> {
        self.0.get(name)
    }
}
