// SPDX-License-Identifier: Apache-2.0

package blueprint

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/sluice-project/sluice/internal/fielderr"
	"github.com/sluice-project/sluice/internal/policy"
	"github.com/sluice-project/sluice/internal/policy/strict"
)

// kubeletMeter is the infra meter that reads the use of pods from the kubelets.
const kubeletMeter = "kubeletstats"

// Metrics of pods.
const (
	podCPU    = "k8s_pod_cpu_utilization_ratio"
	podMemory = "k8s_pod_memory_usage_bytes"
)

// KubernetesObject names pods by what they belong to.
type KubernetesObject struct {
	// Group of agents that looks at the pods.
	AgentGroup string `json:"agent_group" default:"default"`
	// API version of the object.
	APIVersion string `json:"api_version" default:"apps/v1" check:"nonempty"`
	// Kind of the object.
	Kind string `json:"kind" default:"Deployment" check:"oneof=Deployment StatefulSet DaemonSet ReplicaSet Job CronJob"`
	// Name of the object.
	Name string `json:"name" check:"required"`
	// Namespace of the object.
	Namespace string `json:"namespace" check:"required"`
}

// average is the query of the average of a metric over the pods of an object.
func (o KubernetesObject) average(metric, policyName string) string {
	return fmt.Sprintf("avg(%s{k8s_%s_name=%s,k8s_namespace_name=%s,policy_name=%s,infra_meter_name=%s})",
		metric, strings.ToLower(o.Kind), quoted(o.Name), quoted(o.Namespace), quoted(policyName), quoted(kubeletMeter))
}

// kubelet adds the infra meter that reads what pods use, or adds the object to it.
func (c *circuit) kubelet(o KubernetesObject) {
	selector := map[string]any{
		"agent_group": o.AgentGroup, "api_version": o.APIVersion, "kind": o.Kind, "name": o.Name, "namespace": o.Namespace,
	}
	if meter, ok := c.infraMeters[kubeletMeter]; ok {
		attributes := meter.Processors["k8sattributes"]
		selectors := attributes["selectors"].([]any)
		if !slices.ContainsFunc(selectors, func(s any) bool { return reflect.DeepEqual(s, selector) }) {
			attributes["selectors"] = append(selectors, selector)
		}
		return
	}
	metadata := []any{
		"k8s.cronjob.name", "k8s.daemonset.name", "k8s.deployment.name", "k8s.job.name", "k8s.namespace.name", "k8s.node.name",
		"k8s.pod.name", "k8s.pod.uid", "k8s.replicaset.name", "k8s.statefulset.name",
	}
	c.infraMeters[kubeletMeter] = policy.InfraMeter{
		AgentGroup: o.AgentGroup,
		Receivers: map[string]map[string]any{"kubeletstats": {
			"auth_type": "serviceAccount", "collection_interval": "15s", "endpoint": "https://${NODE_NAME}:10250",
			"insecure_skip_verify": true, "metric_groups": []any{"pod", "container"},
		}},
		Processors: map[string]map[string]any{"k8sattributes": {
			"auth_type": "serviceAccount", "passthrough": false,
			"filter":          map[string]any{"node_from_env_var": "NODE_NAME"},
			"extract":         map[string]any{"metadata": metadata},
			"pod_association": []any{map[string]any{"sources": []any{map[string]any{"from": "resource_attribute", "name": "k8s.pod.uid"}}}},
			"selectors":       []any{any(selector)},
		}},
		Pipeline: policy.MetricsPipeline{Receivers: []string{"kubeletstats"}, Processors: []string{"k8sattributes"}},
	}
}

// KubeletOverloadConfirmations confirm an overload by what pods use.
type KubeletOverloadConfirmations struct {
	// The pods.
	InfraContext KubernetesObject `json:"infra_context" check:"required"`
	// What confirms an overload.
	Criteria KubeletCriteria `json:"criteria"`
}

// KubeletCriteria are limits on what pods use; those that are enabled all have to be passed.
type KubeletCriteria struct {
	// Average use of CPU, in cores.
	PodCPU KubeletCriterion `json:"pod_cpu"`
	// Average use of memory, in bytes.
	PodMemory KubeletCriterion `json:"pod_memory"`
}

// KubeletCriterion is one limit.
type KubeletCriterion struct {
	// Look at this at all.
	Enabled bool `json:"enabled" default:"false"`
	// Use beyond which an overload is confirmed.
	Threshold *float64 `json:"threshold,omitempty" check:"gte=0"`
}

var _ strict.Checker = (*KubeletCriterion)(nil)

// Check refuses a criterion without threshold, and warns of a threshold without effect.
func (k *KubeletCriterion) Check(at strict.Place) { checkEnabled(at, k.Enabled, k.Threshold) }

func checkEnabled(at strict.Place, enabled bool, threshold *float64) {
	switch {
	case enabled && !at.Present("threshold"):
		at.RefuseAbsence("threshold", fielderr.Error{Message: "missing", Want: "a number", Hint: "it is needed because enabled is true"})
	case !enabled && threshold != nil:
		at.Field("threshold").Warn(fielderr.Error{Message: "it has no effect", Hint: "set enabled to true as well"})
	}
}

// confirmKubelet adds the confirmations and returns their signals.
func (c *circuit) confirmKubelet(v *KubeletOverloadConfirmations) (confirmed []string) {
	values := fielderr.Path(coreField).Field("kubelet_overload_confirmations")
	for _, k := range []struct {
		criterion           KubeletCriterion
		field, signal, name string
	}{
		{v.Criteria.PodCPU, "pod_cpu", "POD_CPU", podCPU},
		{v.Criteria.PodMemory, "pod_memory", "POD_MEMORY", podMemory},
	} {
		if !k.criterion.Enabled || k.criterion.Threshold == nil {
			continue
		}
		at, result := values.Field("criteria").Field(k.field), k.signal+"_CONFIRMED"
		c.query(at, v.InfraContext.average(k.name, c.name), c.tick, k.signal)
		c.decide(at, k.signal, "gt", *k.criterion.Threshold, result)
		confirmed = append(confirmed, result)
	}
	if len(confirmed) > 0 {
		c.kubelet(v.InfraContext)
	}
	return confirmed
}

// SetpointAIADCore is AIADCore with the number that the signal should not exceed.
type SetpointAIADCore struct {
	AIADCore
	// What the signal should not exceed.
	Setpoint float64 `json:"setpoint" check:"required"`
}

const coreSetpoint = coreField + ".setpoint"

// CPULoadScheduling are the values of load-scheduling/cpu-overload-protection-k8s.
type CPULoadScheduling struct {
	Common
	// How an overload is answered. The signal is the average use of CPU by the pods, in percent of a core.
	LoadSchedulingCore SetpointAIADCore `json:"load_scheduling_core" check:"required"`
	// The pods that are protected.
	KubernetesObjectSelector KubernetesObject `json:"kubernetes_object_selector" check:"required"`
}

func (v *CPULoadScheduling) build(c *circuit) {
	query := v.KubernetesObjectSelector.average(podCPU, c.name) + " * 100"
	c.kubelet(v.KubernetesObjectSelector)
	c.aiad(&v.LoadSchedulingCore.AIADCore, overload{query, "kubernetes_object_selector", "gt", v.LoadSchedulingCore.Setpoint, coreSetpoint})
}

// ElasticsearchLoadScheduling are the values of load-scheduling/elasticsearch.
type ElasticsearchLoadScheduling struct {
	Common
	// How an overload is answered.
	LoadSchedulingCore AIADCore `json:"load_scheduling_core" check:"required"`
	// Where the cluster is.
	Elasticsearch ElasticsearchValues `json:"elasticsearch" check:"required"`
	// Searches that wait in the queue of a node, on average, beyond which there is an overload.
	SearchQueueThreshold float64 `json:"search_queue_threshold" check:"required,gte=0"`
}

// ElasticsearchValues say where a cluster of Elasticsearch is and what is read from it.
type ElasticsearchValues struct {
	// Group of agents that reads it, one of them at a time.
	AgentGroup string `json:"agent_group" default:"default"`
	// URL of the cluster.
	Endpoint string `json:"endpoint" check:"required"`
	// User that may read statistics.
	Username string `json:"username" check:"required"`
	// Password of the user. ${NAME} takes it from the environment of the agent.
	Password string `json:"password" check:"required"`
	// Nodes to read, as Elasticsearch filters them. Empty: all.
	Nodes []string `json:"nodes,omitempty"`
	// Indices to read. Empty: all.
	Indices []string `json:"indices,omitempty"`
	// Do not read metrics of the whole cluster.
	SkipClusterMetrics bool `json:"skip_cluster_metrics" default:"false"`
	// Time from one reading to the next.
	CollectionInterval policy.Duration `json:"collection_interval" default:"10s" check:"gt=0s"`
	// Time before the first reading.
	InitialDelay *policy.Duration `json:"initial_delay,omitempty"`
}

func (v *ElasticsearchLoadScheduling) build(c *circuit) {
	const meter = "elasticsearch"
	e := &v.Elasticsearch
	receiver := receiverConfig{}
	receiver.set("endpoint", e.Endpoint)
	receiver.set("username", e.Username)
	receiver.set("password", e.Password)
	receiver.list("nodes", e.Nodes)
	receiver.list("indices", e.Indices)
	receiver["skip_cluster_metrics"] = e.SkipClusterMetrics
	receiver.duration("collection_interval", &e.CollectionInterval)
	receiver.duration("initial_delay", e.InitialDelay)
	c.infraMeters[meter] = groupMeter(e.AgentGroup, meter, receiver)
	query := fmt.Sprintf(`avg(elasticsearch_node_thread_pool_tasks_queued{%s,thread_pool_name="search"})`, c.ofMeter(meter))
	c.aiad(&v.LoadSchedulingCore, overload{query, "elasticsearch", "gt", v.SearchQueueThreshold, "search_queue_threshold"})
}

// PostgreSQLLoadScheduling are the values of load-scheduling/postgresql.
type PostgreSQLLoadScheduling struct {
	Common
	// How an overload is answered.
	LoadSchedulingCore AIADCore `json:"load_scheduling_core" check:"required"`
	// Where the server is.
	PostgreSQL PostgreSQLValues `json:"postgresql" check:"required"`
	// Percentage of the connections in use beyond which there is an overload.
	ConnectionsUsedThreshold float64 `json:"connections_used_threshold" check:"required,gte=0,lte=100"`
}

// PostgreSQLValues say where a server of PostgreSQL is and what is read from it.
type PostgreSQLValues struct {
	// Group of agents that reads it, one of them at a time.
	AgentGroup string `json:"agent_group" default:"default"`
	// Address of the server: host:port, or the directory of its socket.
	Endpoint string `json:"endpoint" check:"required"`
	// User that may read statistics.
	Username string `json:"username" check:"required"`
	// Password of the user. ${NAME} takes it from the environment of the agent.
	Password string `json:"password" check:"required"`
	// Network of the endpoint.
	Transport string `json:"transport" default:"tcp" check:"oneof=tcp unix"`
	// Databases to read. Empty: all.
	Databases []string `json:"databases,omitempty"`
	// Time from one reading to the next.
	CollectionInterval policy.Duration `json:"collection_interval" default:"10s" check:"gt=0s"`
	// Time before the first reading.
	InitialDelay *policy.Duration `json:"initial_delay,omitempty"`
	// How the connection is encrypted. Absent: as the receiver does by default.
	TLS *PostgreSQLTLS `json:"tls,omitempty"`
}

// PostgreSQLTLS says how a connection is encrypted.
type PostgreSQLTLS struct {
	// Do not encrypt.
	Insecure bool `json:"insecure" default:"false"`
	// Do not check the certificate of the server.
	InsecureSkipVerify bool `json:"insecure_skip_verify" default:"false"`
	// File with the certificate of the client.
	CertFile string `json:"cert_file,omitempty"`
	// File with the key of the client.
	KeyFile string `json:"key_file,omitempty"`
	// File with the certificates that signed the server's.
	CAFile string `json:"ca_file,omitempty"`
}

func (v *PostgreSQLLoadScheduling) build(c *circuit) {
	const meter = "postgresql"
	p := &v.PostgreSQL
	receiver := receiverConfig{}
	receiver.set("endpoint", p.Endpoint)
	receiver.set("username", p.Username)
	receiver.set("password", p.Password)
	receiver.set("transport", p.Transport)
	receiver.list("databases", p.Databases)
	receiver.duration("collection_interval", &p.CollectionInterval)
	receiver.duration("initial_delay", p.InitialDelay)
	if p.TLS != nil {
		tls := receiverConfig{"insecure": p.TLS.Insecure, "insecure_skip_verify": p.TLS.InsecureSkipVerify}
		tls.set("cert_file", p.TLS.CertFile)
		tls.set("key_file", p.TLS.KeyFile)
		tls.set("ca_file", p.TLS.CAFile)
		receiver["tls"] = map[string]any(tls)
	}
	c.infraMeters[meter] = groupMeter(p.AgentGroup, meter, receiver)
	query := fmt.Sprintf("(sum(postgresql_backends{%[1]s})/sum(postgresql_connection_max{%[1]s}))*100", c.ofMeter(meter))
	c.aiad(&v.LoadSchedulingCore, overload{query, "postgresql", "gt", v.ConnectionsUsedThreshold, "connections_used_threshold"})
}

// jmxMeter is the infra meter that scrapes the exporter of a Java machine.
const jmxMeter = "jmx_inframeter"

// JavaGCLoadScheduling are the values of load-scheduling/java-gc-generic.
type JavaGCLoadScheduling struct {
	Common
	// How an overload is answered. The signal is the length of the last garbage collection, in milliseconds.
	LoadSchedulingCore SetpointAIADCore `json:"load_scheduling_core" check:"required"`
	// Where the Java machine shows its metrics.
	JMX JMXTarget `json:"jmx" check:"required"`
}

// JMXTarget is the JMX exporter of one Java machine.
type JMXTarget struct {
	// Host of the exporter.
	JMXHost string `json:"jmx_host" check:"required"`
	// Port of the exporter.
	JMXPrometheusPort int32 `json:"jmx_prometheus_port" check:"required,gt=0,lte=65535"`
}

func (v *JavaGCLoadScheduling) build(c *circuit) {
	target := fmt.Sprintf("%s:%d", v.JMX.JMXHost, v.JMX.JMXPrometheusPort)
	c.javaGC(&v.LoadSchedulingCore, map[string]any{
		"static_configs": []any{map[string]any{"targets": []any{target}}},
	})
}

// JavaGCKubernetesLoadScheduling are the values of load-scheduling/java-gc-k8s.
type JavaGCKubernetesLoadScheduling struct {
	Common
	// How an overload is answered. The signal is the length of the last garbage collection, in milliseconds.
	LoadSchedulingCore SetpointAIADCore `json:"load_scheduling_core" check:"required"`
	// Pods whose Java machines show their metrics.
	JMX JMXPods `json:"jmx" check:"required"`
}

// JMXPods are the JMX exporters of pods.
type JMXPods struct {
	// Port of the exporters.
	JMXMetricsPort int32 `json:"jmx_metrics_port" default:"8087" check:"gt=0,lte=65535"`
	// Namespace of the pods.
	AppNamespace string `json:"app_namespace" check:"required"`
	// RE2 expression that the whole name of a pod matches.
	K8sPodRegex string `json:"k8s_pod_regex" check:"required,regexp"`
}

func (v *JavaGCKubernetesLoadScheduling) build(c *circuit) {
	relabel := func(members ...any) map[string]any {
		m := map[string]any{}
		for i := 0; i+1 < len(members); i += 2 {
			m[members[i].(string)] = members[i+1]
		}
		return m
	}
	c.javaGC(&v.LoadSchedulingCore, map[string]any{
		"kubernetes_sd_configs": []any{map[string]any{
			"role": "pod", "namespaces": map[string]any{"names": []any{v.JMX.AppNamespace}},
		}},
		"relabel_configs": []any{
			relabel("source_labels", []any{"__meta_kubernetes_pod_name"}, "action", "keep", "regex", v.JMX.K8sPodRegex),
			// "$$" because "$" begins a variable of the environment in configurations of receivers.
			relabel("source_labels", []any{"__meta_kubernetes_pod_ip"}, "action", "replace", "regex", "(.+)",
				"target_label", "__address__", "replacement", fmt.Sprintf("$$1:%d", v.JMX.JMXMetricsPort)),
		},
	})
}

// javaGC adds a load scheduler that keeps garbage collections short.
func (c *circuit) javaGC(core *SetpointAIADCore, scrape map[string]any) {
	scrape["job_name"], scrape["scrape_interval"] = "jmx", "10s"
	c.infraMeters[jmxMeter] = policy.InfraMeter{
		AgentGroup: "default", PerAgentGroup: true,
		Receivers: map[string]map[string]any{"prometheus": {
			"config": map[string]any{"scrape_configs": []any{scrape}},
		}},
		Pipeline: policy.MetricsPipeline{Receivers: []string{"prometheus"}},
	}
	query := fmt.Sprintf("avg(java_lang_G1_Young_Generation_LastGcInfo_duration{%s})", c.ofMeter(jmxMeter))
	c.aiad(&core.AIADCore, overload{query, "jmx", "gt", core.Setpoint, coreSetpoint})
}

// ofMeter matches the metrics of an infra meter of this policy.
func (c *circuit) ofMeter(name string) string {
	return fmt.Sprintf("policy_name=%s,infra_meter_name=%s", quoted(c.name), quoted(name))
}

// groupMeter is an infra meter with one receiver that one agent of a group runs.
func groupMeter(group, receiver string, config receiverConfig) policy.InfraMeter {
	return policy.InfraMeter{
		AgentGroup: group, PerAgentGroup: true,
		Receivers: map[string]map[string]any{receiver: config},
		Pipeline:  policy.MetricsPipeline{Receivers: []string{receiver}},
	}
}

// receiverConfig is the configuration of a receiver; what is empty is left to the receiver.
type receiverConfig map[string]any

func (r receiverConfig) set(key, text string) {
	if text != "" {
		r[key] = text
	}
}

func (r receiverConfig) list(key string, items []string) {
	if len(items) == 0 {
		return
	}
	list := make([]any, len(items))
	for i, item := range items {
		list[i] = item
	}
	r[key] = list
}

func (r receiverConfig) duration(key string, d *policy.Duration) {
	if d != nil {
		r[key] = d.String()
	}
}
