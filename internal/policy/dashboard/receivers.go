// SPDX-License-Identifier: Apache-2.0

package dashboard

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/sluice-project/sluice/internal/policy"
)

// receiver is a dashboard for what one kind of receiver of an infra meter reads. Metrics have the names
// that the OpenTelemetry receivers' have in Prometheus.
type receiver struct {
	title string
	rows  []receiverRow
}

type receiverRow struct {
	title  string
	charts []receiverChart
}

// receiverChart is a chart whose queries have %s where the matchers of the infra meter go.
type receiverChart struct {
	title, unit string
	stat        bool
	series      []series
}

// kinds are the receivers there is a dashboard for.
var kinds = map[string]receiver{"postgresql": postgresql, "elasticsearch": elasticsearch, "rabbitmq": rabbitmq}

// receivers makes a dashboard for each kind of receiver and infra meter of the policy.
func receivers(doc *policy.Document, o Options) []*Dashboard {
	var out []*Dashboard
	taken := map[string]int{}
	meters := doc.Policy.Resources.InfraMeters
	for _, meter := range slices.Sorted(maps.Keys(meters)) {
		var done []string
		for _, name := range slices.Sorted(maps.Keys(meters[meter].Receivers)) {
			kind, _, _ := strings.Cut(name, "/") // postgresql/second is another receiver of the kind
			r, known := kinds[kind]
			if !known || slices.Contains(done, kind) {
				continue
			}
			done = append(done, kind)
			id := kind + "-" + fileName(meter)
			if taken[id]++; taken[id] > 1 { // another meter whose name differs in other characters
				id += "-" + strconv.Itoa(taken[id])
			}
			d := newDashboard(doc, o, id, r.title+" "+meter)
			d.model.Description = "What the infra meter " + literal(meter) + " reads."
			d.receiver(r, label("policy_name", doc.Name)+","+label("infra_meter_name", meter))
			out = append(out, d)
		}
	}
	return out
}

// fileName keeps of a name what may be part of the name of a file.
func fileName(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '-', r == '_':
			return r
		case r >= 'A' && r <= 'Z':
			return r - 'A' + 'a'
		}
		return '-'
	}, s)
}

func (d *Dashboard) receiver(r receiver, matchers string) {
	for _, row := range r.rows {
		d.row(row.title)
		for _, c := range row.charts {
			filled := chart{title: c.title, unit: c.unit, stat: c.stat}
			for _, s := range c.series {
				filled.series = append(filled.series, series{s.legend, strings.ReplaceAll(s.expr, "%s", matchers)})
			}
			w, h := 8, 8
			if c.stat {
				w, h = 6, 4
			}
			d.add(w, h, filled)
		}
	}
}

// lines is a chart with one query.
func lines(title, unit, legend, expr string) receiverChart {
	return receiverChart{title: title, unit: unit, series: []series{{legend, expr}}}
}

// figure is a single number.
func figure(title, unit, expr string) receiverChart {
	return receiverChart{title: title, unit: unit, stat: true, series: []series{{title, expr}}}
}

// perSecond is the rate of a counter by a label.
func perSecond(by, counter string) string {
	return "sum by (" + by + ") (rate(" + counter + "{%s}[$__rate_interval]))"
}

// newest is the sum of a gauge by a label.
func newest(by, gauge string) string { return "sum by (" + by + ") (" + gauge + "{%s})" }

// hitRate is the part of the blocks of a kind that came from the cache, in percent.
func hitRate(kind string) string {
	of := func(source string) string {
		return `sum(rate(postgresql_blocks_read_total{source="` + kind + `_` + source + `",%s}[$__rate_interval]))`
	}
	return of("hit") + " / (" + of("hit") + " + " + of("read") + ") * 100"
}

var postgresql = receiver{title: "PostgreSQL", rows: []receiverRow{
	{"Overview", []receiverChart{
		figure("Active Connections %", "percent", "sum(postgresql_backends{%s}) / sum(postgresql_connection_max{%s}) * 100"),
		figure("Index cache hit rate %", "percent", hitRate("idx")),
		figure("Table cache hit rate %", "percent", hitRate("heap")),
		figure("Instances", "short", "count(postgresql_connection_max{%s})"),
		figure("Size", "bytes", "sum(postgresql_db_size_bytes{%s})"),
		figure("Max Connections", "short", "sum(postgresql_connection_max{%s})"),
		figure("Tables", "short", "sum(postgresql_table_count{%s})"),
		figure("Databases", "short", "sum(postgresql_database_count{%s})"),
	}},
	{"Activity", []receiverChart{
		lines("Connections", "short", "{{postgresql_database_name}}", newest("postgresql_database_name", "postgresql_backends")),
		{title: "Commits vs Rollbacks", unit: "ops", series: []series{
			{"commits", "sum(rate(postgresql_commits_total{%s}[$__rate_interval]))"}, {"rollbacks", "sum(rate(postgresql_rollbacks_total{%s}[$__rate_interval]))"},
		}},
		lines("Operations", "ops", "{{operation}}", perSecond("operation", "postgresql_operations_total")),
		lines("Block Reads", "ops", "{{source}}", perSecond("source", "postgresql_blocks_read_total")),
		lines("Checkpoint Rate", "ops", "{{type}}", perSecond("type", "postgresql_bgwriter_checkpoint_count_total")),
		lines("Buffer Writes", "ops", "{{source}}", perSecond("source", "postgresql_bgwriter_buffers_writes_total")),
	}},
	{"Tables", []receiverChart{
		lines("Tables with most disk usage", "bytes", "{{postgresql_table_name}}", "topk(10, sum by (postgresql_table_name) (postgresql_table_size_bytes{%s}))"),
		lines("Tables with most live rows", "short", "{{postgresql_table_name}}", `topk(10, sum by (postgresql_table_name) (postgresql_rows{state="live",%s}))`),
	}},
}}

var elasticsearch = receiver{title: "Elasticsearch", rows: []receiverRow{
	{"Cluster", []receiverChart{
		figure("Nodes", "short", "max(elasticsearch_cluster_nodes{%s})"),
		figure("Data Nodes", "short", "max(elasticsearch_cluster_data_nodes{%s})"),
		figure("In-flight Fetches", "short", "max(elasticsearch_cluster_in_flight_fetch{%s})"),
		figure("Pending Tasks", "short", "max(elasticsearch_cluster_pending_tasks{%s})"),
		lines("Shards", "short", "{{state}}", "max by (state) (elasticsearch_cluster_shards{%s})"),
		lines("Health", "short", "{{status}}", "max by (status) (elasticsearch_cluster_health{%s})"),
	}},
	{"Load", []receiverChart{
		lines("CPU", "percent", "{{elasticsearch_node_name}}", "avg by (elasticsearch_node_name) (elasticsearch_os_cpu_usage_percent{%s})"),
		lines("Tasks queued", "short", "{{thread_pool_name}}", newest("thread_pool_name", "elasticsearch_node_thread_pool_tasks_queued")),
		lines("Threads", "short", "{{thread_pool_name}} {{state}}", newest("thread_pool_name, state", "elasticsearch_node_thread_pool_threads")),
		lines("Breaker trips", "ops", "{{name}}", perSecond("name", "elasticsearch_breaker_tripped_total")),
		lines("Indexing pressure", "bytes", "{{stage}}", newest("stage", "elasticsearch_indexing_pressure_memory_total_primary_bytes")),
		lines("Indexing rejections", "ops", "{{stage}}", perSecond("stage", "elasticsearch_indexing_pressure_memory_total_primary_rejections_total")),
		lines("Operations", "ops", "{{operation}}", perSecond("operation", "elasticsearch_node_operations_completed_total")),
		lines("Connections", "short", "{{elasticsearch_node_name}}", newest("elasticsearch_node_name", "elasticsearch_node_http_connections")),
	}},
	{"Storage and memory", []receiverChart{
		lines("Documents", "short", "{{state}}", newest("state", "elasticsearch_node_documents")),
		lines("Translog operations", "ops", "{{elasticsearch_node_name}}", perSecond("elasticsearch_node_name", "elasticsearch_node_translog_operations_total")),
		lines("Disk available", "bytes", "{{elasticsearch_node_name}}", newest("elasticsearch_node_name", "elasticsearch_node_fs_disk_available_bytes")),
		lines("Disk size", "bytes", "{{elasticsearch_node_name}}", newest("elasticsearch_node_name", "elasticsearch_node_fs_disk_total_bytes")),
		lines("Garbage collections", "ops", "{{name}}", perSecond("name", "jvm_gc_collections_count_total")),
		lines("Heap used", "bytes", "{{elasticsearch_node_name}}", newest("elasticsearch_node_name", "jvm_memory_heap_used_bytes")),
	}},
}}

var rabbitmq = receiver{title: "RabbitMQ", rows: []receiverRow{
	{"Overview", []receiverChart{
		figure("Ready", "short", `sum(rabbitmq_message_current{state="ready",%s})`),
		figure("Unacknowledged", "short", `sum(rabbitmq_message_current{state="unacknowledged",%s})`),
		figure("Published per second", "ops", "sum(rate(rabbitmq_message_published_total{%s}[$__rate_interval]))"),
		figure("Delivered per second", "ops", "sum(rate(rabbitmq_message_delivered_total{%s}[$__rate_interval]))"),
		figure("Consumers", "short", "sum(rabbitmq_consumer_count{%s})"),
	}},
	{"Queues", []receiverChart{
		lines("Messages", "short", "{{rabbitmq_queue_name}} {{state}}", newest("rabbitmq_queue_name, state", "rabbitmq_message_current")),
		lines("Growth", "ops", "{{rabbitmq_queue_name}}", "sum by (rabbitmq_queue_name) (deriv(rabbitmq_message_current{%s}[$__rate_interval]))"),
		lines("Consumers", "short", "{{rabbitmq_queue_name}}", newest("rabbitmq_queue_name", "rabbitmq_consumer_count")),
	}},
	{"Virtual hosts", []receiverChart{
		lines("Published", "ops", "{{rabbitmq_vhost_name}}", perSecond("rabbitmq_vhost_name", "rabbitmq_message_published_total")),
		lines("Delivered", "ops", "{{rabbitmq_vhost_name}}", perSecond("rabbitmq_vhost_name", "rabbitmq_message_delivered_total")),
		lines("Messages", "short", "{{rabbitmq_vhost_name}} {{state}}", newest("rabbitmq_vhost_name, state", "rabbitmq_message_current")),
	}},
}}
