//! From the table to the page: a `prometheus::Registry` that holds every metric of the table, and
//! its text. The registry is our own, so that nothing else of the process slips onto the page.
//!
//! A family is taken out by its row: `exposition.counter(&metrics::PREEMPTIONS)`. Asking for a row
//! as something that it is not is a bug and panics at the start of the process, with the name.

use std::collections::BTreeMap;

use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::{
    Counter, CounterVec, Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec,
    IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::metrics::{Kind, Metric, TABLE};

/// Content type of the page: Prometheus text format 0.0.4.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Every metric of the table, registered.
pub struct Exposition {
    registry: Registry,
    families: BTreeMap<&'static str, Family>,
}

/// All are kept as vectors; a metric without labels is the vector's only child.
#[derive(Clone)]
enum Family {
    Counter(IntCounterVec),
    CounterF64(CounterVec),
    Gauge(IntGaugeVec),
    GaugeF64(GaugeVec),
    Histogram(HistogramVec),
}

impl Default for Exposition {
    fn default() -> Self {
        Self::new()
    }
}

impl Exposition {
    /// Registers the whole table, and the metrics of this process.
    pub fn new() -> Exposition {
        let registry = Registry::new();
        let families = TABLE.iter().map(|metric| (metric.name, register(&registry, metric)));
        let families = families.collect();
        registry
            .register(Box::new(ProcessCollector::for_self()))
            .expect("no metric of the table is named like one of the process");
        Exposition { registry, families }
    }

    /// The page.
    pub fn text(&self) -> String {
        let mut page = Vec::with_capacity(64 << 10);
        TextEncoder::new().encode(&self.registry.gather(), &mut page).expect(
            "writing to memory does not fail, and families in the registry are well formed",
        );
        String::from_utf8(page).expect("the text format is UTF-8")
    }

    pub fn counter(&self, metric: &Metric) -> IntCounter {
        self.counter_vec(metric).with_label_values(no_labels(metric))
    }

    pub fn counter_f64(&self, metric: &Metric) -> Counter {
        match self.family(metric) {
            Family::CounterF64(family) => family.with_label_values(no_labels(metric)),
            _ => wrong_kind(metric),
        }
    }

    pub fn gauge(&self, metric: &Metric) -> IntGauge {
        self.gauge_vec(metric).with_label_values(no_labels(metric))
    }

    pub fn gauge_f64(&self, metric: &Metric) -> Gauge {
        self.gauge_f64_vec(metric).with_label_values(no_labels(metric))
    }

    pub fn histogram(&self, metric: &Metric) -> Histogram {
        self.histogram_vec(metric).with_label_values(no_labels(metric))
    }

    pub fn counter_vec(&self, metric: &Metric) -> IntCounterVec {
        match self.family(metric) {
            Family::Counter(family) => family.clone(),
            _ => wrong_kind(metric),
        }
    }

    pub fn gauge_vec(&self, metric: &Metric) -> IntGaugeVec {
        match self.family(metric) {
            Family::Gauge(family) => family.clone(),
            _ => wrong_kind(metric),
        }
    }

    pub fn gauge_f64_vec(&self, metric: &Metric) -> GaugeVec {
        match self.family(metric) {
            Family::GaugeF64(family) => family.clone(),
            _ => wrong_kind(metric),
        }
    }

    pub fn histogram_vec(&self, metric: &Metric) -> HistogramVec {
        match self.family(metric) {
            Family::Histogram(family) => family.clone(),
            _ => wrong_kind(metric),
        }
    }

    fn family(&self, metric: &Metric) -> &Family {
        self.families.get(metric.name).expect("every metric is a row of the table")
    }
}

fn register(registry: &Registry, metric: &Metric) -> Family {
    let opts = Opts::new(metric.name, metric.help);
    let bad = "rows of the table make valid metrics";
    match metric.kind {
        Kind::Counter => {
            let family = IntCounterVec::new(opts, metric.labels).expect(bad);
            Family::Counter(registered(registry, family))
        }
        Kind::CounterF64 => {
            let family = CounterVec::new(opts, metric.labels).expect(bad);
            Family::CounterF64(registered(registry, family))
        }
        Kind::Gauge => {
            let family = IntGaugeVec::new(opts, metric.labels).expect(bad);
            Family::Gauge(registered(registry, family))
        }
        Kind::GaugeF64 => {
            let family = GaugeVec::new(opts, metric.labels).expect(bad);
            Family::GaugeF64(registered(registry, family))
        }
        Kind::Histogram(buckets) => {
            let opts = HistogramOpts::from(opts).buckets(buckets.to_vec());
            let family = HistogramVec::new(opts, metric.labels).expect(bad);
            Family::Histogram(registered(registry, family))
        }
    }
}

fn registered<C: Collector + Clone + 'static>(registry: &Registry, family: C) -> C {
    registry.register(Box::new(family.clone())).expect("names in the table are unique");
    family
}

fn no_labels(metric: &Metric) -> &'static [&'static str] {
    assert!(metric.labels.is_empty(), "{} has labels: ask for its family", metric.name);
    &[]
}

fn wrong_kind<T>(metric: &Metric) -> T {
    panic!("{} is a {:?}: asked for as something else", metric.name, metric.kind)
}
