//! Names of well-known ports.
//!
//! A small table of the ports that matter in clusters and on servers, under the names their users
//! say. It serves filters (`port = redis`), display, and the question which end of a connection
//! picked up in mid-stream is the service.

use crate::tuple::Protocol;

const TCP: u8 = 1;
const UDP: u8 = 1 << 1;
const SCTP: u8 = 1 << 2;

/// (port, protocols, name), sorted by port. A name belongs to one port only; a port may have one
/// name per protocol.
const PORTS: &[(u16, u8, &str)] = &[
    (7, TCP | UDP, "echo"),
    (9, TCP | UDP, "discard"),
    (20, TCP, "ftp-data"),
    (21, TCP, "ftp"),
    (22, TCP, "ssh"),
    (23, TCP, "telnet"),
    (25, TCP, "smtp"),
    (43, TCP, "whois"),
    (49, TCP | UDP, "tacacs"),
    (53, TCP | UDP, "dns"),
    (67, UDP, "dhcp"),
    (68, UDP, "dhcp-client"),
    (69, UDP, "tftp"),
    (80, TCP, "http"),
    (88, TCP | UDP, "kerberos"),
    (110, TCP, "pop3"),
    (111, TCP | UDP, "rpcbind"),
    (123, UDP, "ntp"),
    (135, TCP, "msrpc"),
    (137, UDP, "netbios-ns"),
    (138, UDP, "netbios-dgm"),
    (139, TCP, "netbios-ssn"),
    (143, TCP, "imap"),
    (161, UDP, "snmp"),
    (162, UDP, "snmp-trap"),
    (179, TCP, "bgp"),
    (389, TCP | UDP, "ldap"),
    (443, TCP, "https"),
    (443, UDP, "quic"),
    (445, TCP, "smb"),
    (465, TCP, "smtps"),
    (500, UDP, "isakmp"),
    (514, TCP | UDP, "syslog"),
    (515, TCP, "lpd"),
    (520, UDP, "rip"),
    (546, UDP, "dhcpv6-client"),
    (547, UDP, "dhcpv6"),
    (554, TCP, "rtsp"),
    (587, TCP, "submission"),
    (623, UDP, "ipmi"),
    (631, TCP | UDP, "ipp"),
    (636, TCP, "ldaps"),
    (853, TCP | UDP, "dns-tls"),
    (860, TCP, "iscsi-system"),
    (873, TCP, "rsync"),
    (989, TCP, "ftps-data"),
    (990, TCP, "ftps"),
    (993, TCP, "imaps"),
    (995, TCP, "pop3s"),
    (1080, TCP, "socks"),
    (1194, TCP | UDP, "openvpn"),
    (1433, TCP, "mssql"),
    (1521, TCP, "oracle"),
    (1701, UDP, "l2tp"),
    (1723, TCP, "pptp"),
    (1812, UDP, "radius"),
    (1813, UDP, "radius-acct"),
    (1883, TCP, "mqtt"),
    (1900, UDP, "ssdp"),
    (2049, TCP | UDP, "nfs"),
    (2181, TCP, "zookeeper"),
    (2375, TCP, "docker"),
    (2376, TCP, "docker-tls"),
    (2379, TCP, "etcd"),
    (2380, TCP, "etcd-peer"),
    (2888, TCP, "zookeeper-peer"),
    (3000, TCP, "grafana"),
    (3100, TCP, "loki"),
    (3128, TCP, "squid"),
    (3260, TCP, "iscsi"),
    (3306, TCP, "mysql"),
    (3389, TCP | UDP, "rdp"),
    (3478, TCP | UDP, "stun"),
    (4149, TCP, "kubelet-cadvisor"),
    (4222, TCP, "nats"),
    (4240, TCP, "cilium-health"),
    (4244, TCP, "hubble"),
    (4245, TCP, "hubble-relay"),
    (4317, TCP, "otlp"),
    (4318, TCP, "otlp-http"),
    (4369, TCP, "epmd"),
    (4500, UDP, "ipsec-nat"),
    (4646, TCP, "nomad"),
    (4789, UDP, "vxlan"),
    (5000, TCP, "registry"),
    (5044, TCP, "beats"),
    (5060, TCP | UDP | SCTP, "sip"),
    (5061, TCP | SCTP, "sips"),
    (5222, TCP, "xmpp"),
    (5353, UDP, "mdns"),
    (5355, TCP | UDP, "llmnr"),
    (5432, TCP, "postgres"),
    (5473, TCP, "typha"),
    (5601, TCP, "kibana"),
    (5671, TCP, "amqps"),
    (5672, TCP, "amqp"),
    (5701, TCP, "hazelcast"),
    (5900, TCP, "vnc"),
    (5985, TCP, "winrm"),
    (6081, UDP, "geneve"),
    (6222, TCP, "nats-route"),
    (6379, TCP, "redis"),
    (6432, TCP, "pgbouncer"),
    (6443, TCP, "kube-apiserver"),
    (6641, TCP, "ovn-north"),
    (6642, TCP, "ovn-south"),
    (6650, TCP, "pulsar"),
    (6783, TCP | UDP, "weave"),
    (7000, TCP, "cassandra-peer"),
    (7077, TCP, "spark"),
    (7233, TCP, "temporal"),
    (7472, TCP, "metallb"),
    (7946, TCP | UDP, "memberlist"),
    (8080, TCP, "http-alt"),
    (8086, TCP, "influxdb"),
    (8123, TCP, "clickhouse-http"),
    (8200, TCP, "vault"),
    (8300, TCP, "consul-rpc"),
    (8301, TCP | UDP, "consul-serf"),
    (8443, TCP, "https-alt"),
    (8472, UDP, "flannel-vxlan"),
    (8500, TCP, "consul"),
    (8883, TCP, "mqtts"),
    (8983, TCP, "solr"),
    (9000, TCP, "clickhouse"),
    (9042, TCP, "cassandra"),
    (9080, TCP, "apisix"),
    (9090, TCP, "prometheus"),
    (9091, TCP, "pushgateway"),
    (9092, TCP, "kafka"),
    (9093, TCP, "alertmanager"),
    (9100, TCP, "node-exporter"),
    (9153, TCP, "coredns-metrics"),
    (9200, TCP, "elasticsearch"),
    (9300, TCP, "elasticsearch-peer"),
    (9411, TCP, "zipkin"),
    (9418, TCP, "git"),
    (10248, TCP, "kubelet-health"),
    (10249, TCP, "kube-proxy-metrics"),
    (10250, TCP, "kubelet"),
    (10255, TCP, "kubelet-read-only"),
    (10256, TCP, "kube-proxy-health"),
    (10257, TCP, "kube-controller-manager"),
    (10259, TCP, "kube-scheduler"),
    (11211, TCP | UDP, "memcached"),
    (14250, TCP, "jaeger"),
    (15001, TCP, "istio-outbound"),
    (15006, TCP, "istio-inbound"),
    (15008, TCP, "istio-hbone"),
    (15010, TCP, "istiod-plain"),
    (15012, TCP, "istiod"),
    (15020, TCP, "istio-metrics"),
    (15021, TCP, "istio-health"),
    (15090, TCP, "envoy-metrics"),
    (15672, TCP, "rabbitmq"),
    (16443, TCP, "microk8s-apiserver"),
    (16509, TCP, "libvirt"),
    (25672, TCP, "rabbitmq-peer"),
    (26257, TCP, "cockroachdb"),
    (26379, TCP, "redis-sentinel"),
    (27017, TCP, "mongodb"),
    (50051, TCP, "grpc"),
    (51820, UDP, "wireguard"),
];

/// The name of the service that usually answers on this port.
pub fn service_name(protocol: Protocol, port: u16) -> Option<&'static str> {
    let transport = match protocol {
        Protocol::TCP => TCP,
        Protocol::UDP => UDP,
        Protocol::SCTP => SCTP,
        _ => return None,
    };
    let first = PORTS.partition_point(|(number, ..)| *number < port);
    PORTS[first..]
        .iter()
        .take_while(|(number, ..)| *number == port)
        .find(|(_, transports, _)| transports & transport != 0)
        .map(|(.., name)| *name)
}

/// True when a service usually answers on this port.
pub fn is_well_known(protocol: Protocol, port: u16) -> bool {
    service_name(protocol, port).is_some()
}

/// The port with this name (lower case).
pub fn by_name(name: &str) -> Option<u16> {
    PORTS.iter().find(|(.., candidate)| *candidate == name).map(|(port, ..)| *port)
}

/// All names, in the order of their ports.
pub fn names() -> impl Iterator<Item = &'static str> {
    PORTS.iter().map(|(.., name)| *name)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_table_is_sorted_and_its_names_are_unique_words() {
        for pair in PORTS.windows(2) {
            let ((port, transports, name), (next, next_transports, _)) = (pair[0], pair[1]);
            assert!(port <= next, "{name} ({port}) stands before {next}");
            let both_claim = port == next && transports & next_transports != 0;
            assert!(!both_claim, "port {port} has two names for one protocol");
        }
        let unique: HashSet<&str> = names().collect();
        assert_eq!(unique.len(), PORTS.len());
        for name in names() {
            let is_word =
                name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
            assert!(is_word && name.parse::<u16>().is_err(), "{name}");
        }
    }

    #[test]
    fn names_and_ports_lead_to_each_other() {
        for (port, transports, name) in PORTS {
            assert_eq!(by_name(name), Some(*port));
            for (bit, protocol) in
                [(TCP, Protocol::TCP), (UDP, Protocol::UDP), (SCTP, Protocol::SCTP)]
            {
                let named = service_name(protocol, *port) == Some(*name);
                assert_eq!(named, transports & bit != 0, "{name} over {protocol}");
            }
        }
    }

    #[test]
    fn the_protocol_decides() {
        assert_eq!(service_name(Protocol::TCP, 443), Some("https"));
        assert_eq!(service_name(Protocol::UDP, 443), Some("quic"));
        assert_eq!(service_name(Protocol::UDP, 22), None);
        assert_eq!(service_name(Protocol::ICMP, 7), None);
        assert_eq!(service_name(Protocol::TCP, 0), None);
        assert_eq!(service_name(Protocol::TCP, u16::MAX), None);
        assert!(is_well_known(Protocol::TCP, 6443));
        assert!(!is_well_known(Protocol::TCP, 40_000));
    }
}
