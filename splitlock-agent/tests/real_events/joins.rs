//! Joins with other exporters' metrics: the queries of docs/operations.md, in a real Prometheus.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
};

use super::{
    Test,
    agent::Agent,
    cgroup::Cgroup,
    events::{Child, Event, guise::Guise, kvm_guest::Guest},
    prometheus_server::Server,
    requirements::Requirement::{AlignmentChecks, Cgroups, Kvm, Prometheus, Root},
};

pub const TESTS: &[Test] = &[
    Test {
        name: "joins::the_project_of_an_openstack_server",
        needs: &[Root, Kvm, Prometheus, AlignmentChecks],
        run: the_project_of_an_openstack_server,
    },
    Test {
        name: "joins::the_pod_of_a_kubevirt_vm",
        needs: &[Root, Kvm, Prometheus, Cgroups, AlignmentChecks],
        run: the_pod_of_a_kubevirt_vm,
    },
];

const OPERATIONS: &str = include_str!("../../../docs/operations.md");

/// The query below a mark in the documentation. No CPU here traps a guest's lock, so it is asked
/// for the `#AC` that guests can be made to raise.
#[track_caller]
fn documented(mark: &str) -> String {
    let (_, rest) = OPERATIONS
        .split_once(&format!("<!-- join: {mark} -->\n```promql\n"))
        .unwrap_or_else(|| panic!("no join {mark}"));
    let (query, _) = rest.split_once("```").expect("the block has an end");
    let locks = "rate(splitlock_vm_traps_total[5m])";
    assert!(query.contains(locks), "{query}");
    query.replace(locks, "splitlock_vm_ac_injected_total")
}

/// Another exporter that has these series, as long as the test runs.
fn exporter(exposition: String) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("its address");
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            // A scrape that fails is tried again.
            let _ = answer(stream, &exposition);
        }
    });
    address
}

fn answer(mut stream: TcpStream, exposition: &str) -> std::io::Result<()> {
    let head = BufReader::new(stream.try_clone()?).lines();
    for line in head {
        if line?.is_empty() {
            break;
        }
    }
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length: \
         {}\r\n\r\n{exposition}",
        exposition.len()
    )
}

fn guest(count: u64) -> Event {
    Event::KvmGuest {
        guest: Guest::AlignmentCheck,
        count,
        vcpus: 1,
    }
}

fn the_project_of_an_openstack_server() {
    let uuid = "7f9c24e8-0000-4000-8000-00000000002a";
    let other = "7f9c24e8-0000-4000-8000-00000000002b";
    let agent = Agent::start(&[]);
    // The labels of inovex's prometheus-libvirt-exporter.
    let exporter = exporter(format!(
        "libvirt_domain_openstack_info{{domain=\"instance-0000002a\",instance_name=\"web\",\
         instance_id=\"{uuid}\",flavor_name=\"m1\",user_name=\"u\",user_id=\"1\",\
         project_name=\"shop\",project_id=\"2\"}} 1\n\
         libvirt_domain_openstack_info{{domain=\"instance-0000002b\",instance_name=\"db\",\
         instance_id=\"{other}\",flavor_name=\"m1\",user_name=\"u\",user_id=\"1\",\
         project_name=\"bank\",project_id=\"3\"}} 1\n"
    ));
    let guise = Guise::new(
        "qemu-system-x86_64",
        &format!("-name guest=instance-0000002a,debug-threads=on -uuid {uuid}"),
    );
    let mut child = Child::spawn_as(&guest(42), "join-openstack", &guise);
    child.run();
    let server = Server::scraping(&agent, &[exporter]);
    let query = documented("OpenStack");
    server.wait_for(&query, 42.0);
    let project = format!(
        r#"({query}) and on (project_name) libvirt_domain_openstack_info{{project_name="shop"}}"#
    );
    server.wait_for(&project, 42.0);
}

fn the_pod_of_a_kubevirt_vm() {
    let uid = "5ca1ab1e-0000-4000-8000-00000000beef";
    let agent = Agent::start(&[]);
    // The labels of kube-state-metrics.
    let exporter = exporter(format!(
        "kube_pod_info{{namespace=\"shop\",pod=\"virt-launcher-cart-x7x\",uid=\"{uid}\",\
         node=\"n1\",host_ip=\"10.0.0.1\"}} 1\n\
         kube_pod_info{{namespace=\"bank\",pod=\"other\",uid=\"another\",node=\"n1\",\
         host_ip=\"10.0.0.1\"}} 1\n"
    ));
    let cgroup = Cgroup::make(&format!(
        "/kubepods.slice/kubepods-pod{}.slice/crio-{}.scope",
        uid.replace('-', "_"),
        "beef".repeat(16)
    ));
    let guise = Guise::new(
        "qemu-kvm",
        "-name guest=shop_cart,debug-threads=on -uuid 5ca1ab1e-0000-4000-8000-000000000001",
    );
    let mut child = Child::spawn_as(&guest(17), "join-kubevirt", &guise);
    cgroup.add(child.pid());
    child.run();
    let server = Server::scraping(&agent, &[exporter]);
    let query = documented("KubeVirt");
    server.wait_for(&query, 17.0);
    let pod = format!(
        r#"({query}) and on (pod, namespace) kube_pod_info{{pod="virt-launcher-cart-x7x"}}"#
    );
    server.wait_for(&pod, 17.0);
    child.end();
}
