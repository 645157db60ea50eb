//! A network, a control and a node, with tables to begin with.

use ferrovia_core::table::NodeRow;

use crate::control::Control;
use crate::node::Node;
use crate::place::Place;
use crate::rig::Rig;

/// What a test works with. The node ends first.
pub struct Bench {
    pub node: Node,
    pub control: Control,
    pub rig: Rig,
}

pub async fn bench(rows: &[NodeRow]) -> Bench {
    bench_at(Place::shared(), rows).await
}

pub async fn bench_at(place: Place, rows: &[NodeRow]) -> Bench {
    let rig = Rig::at(place);
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("resolv.conf"), "nameserver 127.0.53.53\n").unwrap();
    let control = Control::start(&directory.path().join("tables.sock"), 1);
    let node = Node::start(directory, &rig.place);
    control.publish(rows).await;
    Bench { node, control, rig }
}
