// SPDX-License-Identifier: Apache-2.0

package policy_test

// problems are all problems of every file in testdata/bad: line, column, path and message. After a change
// of messages, "go test -run TestBadDocuments -show -v" prints the rows; commit what you can explain.
var problems = map[string][]string{
	"No_Name.yaml": {
		`1:1: policy_name: the policy has no valid name; got text "No_Name", want lower-case letters, digits, '-' and '.', beginning and ending with a letter or digit; set policy_name`,
	},
	"adaptive.yaml": {
		`2:24: circuit.evaluation_interval: got text "50ms", want at least 100ms`,
		`6:22: circuit.components[0].flow_control.adaptive_concurrency_scheduler.in_ports.setpoint: unknown field; known here: overload_confirmation`,
		`8:80: circuit.components[0].flow_control.adaptive_concurrency_scheduler.concurrency_limiter.limit_by_label_key: got text "user", want nothing; the limit found is that of the service; to share it fairly among users, name the label in scheduler.fairness_label_key`,
		`9:41: circuit.components[0].flow_control.adaptive_concurrency_scheduler.parameters.min_concurrency: got number 100, want at most max_concurrency, which is 10`,
		`9:88: circuit.components[0].flow_control.adaptive_concurrency_scheduler.parameters.initial_concurrency: got 0, want at least 1`,
		`12:9: circuit.components[1].flow_control.adaptive_concurrency_scheduler.concurrency_limiter: missing; want a mapping`,
		`12:9: circuit.components[1].flow_control.adaptive_concurrency_scheduler.alerter: missing; want a mapping`,
	},
	"alias-bomb.yaml": {
		`6:36: document too large; want at most 100000 values, aliases expanded`,
	},
	"alias-inside-itself.yaml": {
		`3:32: got *all inside its own anchor, want an alias of an anchor that ends before it`,
	},
	"alias-unknown.yaml": {
		`3:7: got *limiter, want an alias of an anchor defined above`,
	},
	"amount.yaml": {
		`5:65: circuit.components[0].flow_control.rate_limiter.in_ports.bucket_capacity.constant_signal.value: got number -1, want at least 0`,
		`5:110: circuit.components[0].flow_control.rate_limiter.in_ports.fill_amount.constant_signal.value: got text "1e308", want at most 9007199254740992`,
		`10:73: circuit.components[1].flow_control.concurrency_limiter.in_ports.max_concurrency.constant_signal.special_value: got text "+Inf", want a finite number, or NaN to let everything pass`,
		`15:65: circuit.components[2].flow_control.concurrency_scheduler.in_ports.max_concurrency.constant_signal.value: got number .nan, want a finite number`,
		`20:65: circuit.components[3].flow_control.quota_scheduler.in_ports.bucket_capacity.constant_signal.value: got text "-0.5", want at least 0`,
		`20:122: circuit.components[3].flow_control.quota_scheduler.in_ports.fill_amount.constant_signal.special_value: got text "-Inf", want a finite number, or NaN to let everything pass`,
	},
	"classifiers.yaml": {
		`9:81: circuit.components[0].flow_control.rate_limiter.selectors[0].label_matcher.expression.cel: '=' is no operator; write '==' to compare`,
		`9:83: circuit.components[0].flow_control.rate_limiter.selectors[0].label_matcher.expression.cel: extraneous input '"gold"' expecting <EOF>`,
		`10:93: circuit.components[0].flow_control.rate_limiter.selectors[1].label_matcher.expression.cel: undeclared reference to 'lables' (did you mean 'labels'?)`,
		`11:68: circuit.components[0].flow_control.rate_limiter.selectors[2].label_matcher.expression.cel: undeclared reference to 'request'; conditions read labels only, such as labels["http.method"]`,
		`17:23: circuit.components[0].flow_control.rate_limiter.selectors[3].label_matcher.expression.cel: labels are read by constant keys: labels.key, labels["key"], "key" in labels or has(labels.key)`,
		`21:24: circuit.components[0].flow_control.rate_limiter.selectors[4].label_matcher.expression.cel: found no matching overload for '==' applied to '(string, map(string, string))'`,
		`24:95: circuit.components[0].flow_control.rate_limiter.selectors[5].label_matcher.expression.cel: undeclared reference to 'operation'; a label is read as labels["operation"]`,
		`25:68: circuit.components[0].flow_control.rate_limiter.selectors[6].label_matcher.expression.cel: got empty text, want some text`,
		`31:33: resources.flow_control.classifiers[0].rules.a.extractor.from: no such attribute; want request.http.{id,method,path,host,protocol,body,bearer}, request.http.headers.<name>, source.address, destination.address or metadataContext.filterMetadata.<name>; did you mean "request.http.method"?`,
		`32:33: resources.flow_control.classifiers[0].rules.b.extractor.from: names of headers are in lower case; write "request.http.headers.user-agent"`,
		`33:33: resources.flow_control.classifiers[0].rules.c.extractor.from: no such attribute; extractors cannot read it; use cel: request.scheme`,
		`34:40: resources.flow_control.classifiers[0].rules.d.extractor.json.from: no such attribute; want request.http.{id,method,path,host,protocol,body,bearer}, request.http.headers.<name>, source.address, destination.address or metadataContext.filterMetadata.<name>`,
		`34:63: resources.flow_control.classifiers[0].rules.d.extractor.json.pointer: a JSON pointer begins with '/'; write "/user/name"`,
		`35:74: resources.flow_control.classifiers[0].rules.e.extractor.jwt.json_pointer: "a~2" has a '~' that is not part of ~0 (for ~) or ~1 (for /)`,
		`36:43: resources.flow_control.classifiers[0].rules.f.extractor.address.from: not an address; want source.address or destination.address`,
		`37:62: resources.flow_control.classifiers[0].rules.g.extractor.path_templates.template_values["/*/a"]: '*' is not the last segment; use {name} for one segment`,
		`37:73: resources.flow_control.classifiers[0].rules.g.extractor.path_templates.template_values["/{a}/b"]: the segment "b" comes after a parameter; parameters come last; use '*' for any rest`,
		`38:39: resources.flow_control.classifiers[0].rules.h.extractor.cel: undeclared reference to 'request.pth' (did you mean 'request.path'?)`,
		`39:61: resources.flow_control.classifiers[0].rules.i.extractor.cel: found no matching overload for '==' applied to '(string, int)'`,
		`40:33: resources.flow_control.classifiers[0].rules.j.extractor.from: no such attribute; did you mean "source.address"?`,
		`40:66: resources.flow_control.classifiers[0].rules.j.extractor.cel: got from and cel, want only one of them`,
		`41:33: resources.flow_control.classifiers[0].rules.k.extractor.from: no such attribute; use cel: labels["user"]`,
		`42:33: resources.flow_control.classifiers[0].rules.l.extractor.cel: undeclared reference to 'usr'; known here: destination.address, destination.port, destination.services, labels, request.body, request.headers, request.host, request.id, request.json, request.method, request.path, request.protocol, request.scheme, request.size, source.address, source.port, source.services`,
	},
	"component-none.yaml": {
		`3:7: circuit.components[0]: got none, want one of gradient_controller, ema, arithmetic_combinator, decider, switcher, sma, variable, unary_operator, extrapolator, max, min, first_valid, alerter, integrator, differentiator, and, or, inverter, pulse_generator, holder, nested_circuit, nested_signal_ingress, nested_signal_egress, signal_generator, bool_variable, pid_controller, polynomial_range_function, query, flow_control, auto_scale`,
		`4:7: circuit.components[1]: got nothing (null), want a mapping`,
	},
	"component-two.yaml": {
		`4:7: circuit.components[0].min: got max and min, want only one of them`,
	},
	"constants.yaml": {
		`5:64: circuit.components[0].flow_control.aimd_load_scheduler.in_ports.signal.constant_signal.special_value: got text "NaN", want a finite number`,
		`5:115: circuit.components[0].flow_control.aimd_load_scheduler.in_ports.setpoint.constant_signal.special_value: got text "+Inf", want a finite number`,
		`9:78: circuit.components[1].flow_control.aiad_load_scheduler.in_ports.setpoint.constant_signal.special_value: got text "NaN", want a finite number`,
		`10:45: circuit.components[1].flow_control.aiad_load_scheduler.parameters.min_load_multiplier: got number 3, want at most max_load_multiplier, which is 2`,
		`13:64: circuit.components[2].flow_control.range_driven_load_scheduler.in_ports.signal.constant_signal.special_value: got text "-Inf", want a finite number`,
		`17:65: circuit.components[3].flow_control.load_scheduler.in_ports.load_multiplier.constant_signal.value: got number -1, want at least 0`,
		`21:67: circuit.components[4].flow_control.sampler.in_ports.accept_percentage.constant_signal.value: got number 100.5, want at most 100`,
		`25:75: circuit.components[5].flow_control.sampler.in_ports.accept_percentage.constant_signal.special_value: got text "+Inf", want a finite number, or NaN for an unknown percentage`,
		`29:58: circuit.components[6].auto_scale.pod_scaler.in_ports.replicas.constant_signal.value: got number -1, want at least 0`,
	},
	"control-character.yaml": {
		`1:15: got control character U+0007, want printable text`,
	},
	"document-list.yaml": {
		`1:1: got a list, want a mapping`,
	},
	"duplicate-key.yaml": {
		`4:3: circuit.components: duplicate key, first on line 2; remove one of them`,
	},
	"duration.yaml": {
		`3:26: circuit.components[0].holder.hold_for: got number 5, want a duration such as "30s" or "1m30s"; did you mean "5s"?`,
		`4:26: circuit.components[1].holder.hold_for: got text "5", want a duration such as "30s" or "1m30s"; add the unit: "5s"`,
		`5:26: circuit.components[2].holder.hold_for: got text "5 seconds", want a duration such as "30s" or "1m30s"`,
		`6:26: circuit.components[3].holder.hold_for: got text "-5s", want a duration from 0 to 10 years`,
		`7:26: circuit.components[4].holder.hold_for: got text "100000h", want a duration from 0 to 10 years`,
		`8:26: circuit.components[5].holder.hold_for: got text "999999999999999h", want a duration such as "30s" or "1m30s"`,
		`9:26: circuit.components[6].holder.hold_for: got a list, want a duration such as "30s" or "1m30s"`,
		`10:26: circuit.components[7].holder.hold_for: got text "1d", want a duration such as "30s" or "1m30s"`,
	},
	"empty-key.yaml": {
		`2:18: resources.infra_meters[""]: empty key`,
	},
	"empty.yaml": {
		`1:1: the document is empty`,
	},
	"evaluation-interval-long.yaml": {
		`2:24: circuit.evaluation_interval: got text "1h1s", want at most 1h`,
	},
	"fixed-window.yaml": {
		`6:53: circuit.components[0].flow_control.rate_limiter.parameters.count_denied: got true without fixed_window, want fixed_window: true beside it`,
		`11:75: circuit.components[1].flow_control.quota_scheduler.rate_limiter.count_denied: got true in a quota_scheduler, want false, or a rate_limiter`,
	},
	"flow-control-none.yaml": {
		`3:7: circuit.components[0].flow_control: got none, want one of quota_scheduler, rate_limiter, load_scheduler, adaptive_load_scheduler, sampler, load_ramp, aimd_load_scheduler, range_driven_load_scheduler, aiad_load_scheduler, concurrency_limiter, concurrency_scheduler, adaptive_concurrency_scheduler`,
		`4:7: circuit.components[1].query: got none, want one of promql`,
	},
	"interval-zero.yaml": {
		`2:24: circuit.evaluation_interval: got text "0s", want at least 100ms`,
		`7:34: circuit.components[0].flow_control.rate_limiter.parameters.interval: got text "0s", want more than 0s`,
		`7:53: circuit.components[0].flow_control.rate_limiter.parameters.max_idle_time: got text "0s", want more than 0s`,
		`7:79: circuit.components[0].flow_control.rate_limiter.parameters.lazy_sync.num_sync: got 0, want more than 0`,
		`12:47: circuit.components[1].flow_control.concurrency_limiter.parameters.max_inflight_duration: got text "0s", want more than 0s`,
		`12:66: circuit.components[1].flow_control.concurrency_limiter.parameters.max_idle_time: got text "0s", want more than 0s`,
		`17:60: circuit.components[2].flow_control.rate_limiter.parameters.lazy_sync.num_sync: got number -1, want a whole number from 0 to 4294967295`,
	},
	"key-not-text.yaml": {
		`3:3: invalid YAML: found an invalid key for this map`,
	},
	"label-matcher.yaml": {
		`9:40: circuit.components[0].flow_control.sampler.parameters.selectors[0].label_matcher.match_labels.user: got number 5, want text; put it in quotes: "5"`,
		`11:45: circuit.components[0].flow_control.sampler.parameters.selectors[0].label_matcher.match_list[0].operator: got text "in", want one of In, NotIn, Exists, DoesNotExist; did you mean "In"?`,
		`12:23: circuit.components[0].flow_control.sampler.parameters.selectors[0].label_matcher.match_list[1].values: missing; want the values for operator In`,
		`13:60: circuit.components[0].flow_control.sampler.parameters.selectors[0].label_matcher.match_list[2].values: got an empty list, want the values for operator NotIn`,
		`14:61: circuit.components[0].flow_control.sampler.parameters.selectors[0].label_matcher.match_list[3].values: got a list, want no values for operator Exists`,
		`15:23: circuit.components[0].flow_control.sampler.parameters.selectors[0].label_matcher.match_list[4].key: missing; want text`,
		"16:65: circuit.components[0].flow_control.sampler.parameters.selectors[0].label_matcher.expression.label_matches.regex: got text \"(\", want an RE2 regular expression; missing closing ): `(`",
		`18:33: circuit.components[0].flow_control.sampler.parameters.selectors[1].label_matcher.expression: got none, want one of not, all, any, label_exists, label_equals, label_matches, cel`,
		`20:70: circuit.components[0].flow_control.sampler.parameters.selectors[2].label_matcher.expression.any: got not and any, want only one of them`,
		`22:58: circuit.components[0].flow_control.sampler.parameters.selectors[3].label_matcher.expression.any.of[0].label_equals.label: missing; want text`,
	},
	"merge-text.yaml": {
		`2:7: got text "text", want a mapping after "<<"`,
	},
	"name-too-long.yaml": {
		`1:14: policy_name: got 254 characters, want at most 253`,
	},
	"name-twice.yaml": {
		`2:1: name: got policy_name and name, want only one of them`,
	},
	"name.yaml": {
		`1:14: policy_name: got text "My Policy", want lower-case letters, digits, '-' and '.', beginning and ending with a letter or digit; did you mean "my-policy"?`,
	},
	"nested-ports.yaml": {
		`3:30: circuit.components[0].nested_signal_ingress: allowed inside a nested_circuit only`,
		`4:29: circuit.components[1].nested_signal_egress: allowed inside a nested_circuit only`,
		`6:34: circuit.components[2].nested_circuit.in_ports_map.setpiont: no nested_signal_ingress inside has the port_name "setpiont"; did you mean "setpoint"?`,
		`7:33: circuit.components[2].nested_circuit.out_ports_map.output: no nested_signal_egress inside has the port_name "output"; known here: a`,
		`10:48: circuit.components[2].nested_circuit.components[1].nested_signal_ingress.port_name: port name "setpoint" is taken by components[0] of this nested circuit`,
		`11:13: circuit.components[2].nested_circuit.components[2].nested_signal_egress.port_name: missing; want text`,
		`13:47: circuit.components[2].nested_circuit.components[4].nested_signal_egress.port_name: port name "a" is taken by components[3] of this nested circuit`,
	},
	"nested-too-deep.yaml": {
		`1:110: nested too deeply; want at most 100 levels`,
	},
	"not-filled-in.yaml": {
		`3:42: circuit.components[0].alerter.parameters.alert_name: not filled in; want text`,
	},
	"not-utf8.yaml": {
		`2:1: not valid UTF-8 text; save the file as UTF-8`,
	},
	"nothing-asked-for.yaml": {
		`1:1: circuit: missing; want circuit, resources or both`,
	},
	"object-name-number.yaml": {
		`1:1: spec: missing; want a mapping`,
		`3:18: metadata.name: got 5, want text`,
	},
	"object-no-name.yaml": {
		`3:1: metadata.name: missing; want the name of the policy`,
	},
	"object.yaml": {
		`1:13: apiVersion: got text "fluxninja.com/v1", want one of fluxninja.com/v1alpha1; did you mean "fluxninja.com/v1alpha1"?`,
		`2:7: kind: got text "policy", want one of Policy; did you mean "Policy"?`,
		`4:9: metadata.name: got text "My_Policy", want lower-case letters, digits, '-' and '.', beginning and ending with a letter or digit; did you mean "my-policy"?`,
		`6:3: spec.circuits: unknown field; did you mean "circuit"?`,
	},
	"operator.yaml": {
		`3:27: circuit.components[0].decider.operator: got text "gtt", want one of gt, lt, gte, lte, eq, neq; did you mean "gt"?`,
		`4:41: circuit.components[1].arithmetic_combinator.operator: got text "plus", want one of add, sub, mul, div, xor, lshift, rshift`,
		`5:34: circuit.components[2].unary_operator.operator: got text "flor", want one of abs, acos, acosh, asin, asinh, atan, atanh, cbrt, ceil, cos, cosh, erf, erfc, erfcinv, erfinv, exp, exp2, expm1, floor, gamma, j0, j1, lgamma, log, log10, log1p, log2, round, roundtoeven, sin, sinh, sqrt, tan, tanh, trunc, y0, y1; did you mean "floor"?`,
		`6:55: circuit.components[3].alerter.parameters.severity: got text "critical", want one of info, warn, crit`,
	},
	"port.yaml": {
		`7:32: circuit.components[1].max.in_ports.inputs[0].constant_signal: got signal_name and constant_signal, want only one of them`,
		`8:44: circuit.components[1].max.in_ports.inputs[1].constant_signal.special_value: got value and special_value, want only one of them`,
		`9:49: circuit.components[1].max.in_ports.inputs[2].constant_signal.special_value: got text "nan", want one of NaN, +Inf, -Inf; did you mean "NaN"?`,
		`10:29: circuit.components[1].max.in_ports.inputs[3].signal_name: got empty text, want some text`,
		`11:15: circuit.components[1].max.in_ports.inputs[4]: got number 5, want a port such as {constant_signal: {value: 10}} or {signal_name: NAME}`,
		`12:21: circuit.components[1].max.out_ports.output.signal_name: missing; want text`,
	},
	"range.yaml": {
		`3:80: circuit.components[0].polynomial_range_function.parameters.end.input: got number 1, want another value than start has`,
		`3:110: circuit.components[0].polynomial_range_function.parameters.continue_curve: got clamp_to_datapoint and continue_curve, want only one of them`,
		`4:66: circuit.components[1].gradient_controller.parameters.min_gradient: got number 2, want at most max_gradient`,
		`10:72: circuit.components[2].flow_control.range_driven_load_scheduler.parameters.low_throttle_threshold.load_multiplier: got 2, want at most 1`,
		`11:53: circuit.components[2].flow_control.range_driven_load_scheduler.parameters.high_throttle_threshold.signal_value: got number 1, want another value than low_throttle_threshold has`,
		`16:161: circuit.components[3].auto_scale.auto_scaler.scaling_backend.kubernetes_replicas.max_replicas: got number 2, want at least min_replicas, which is 5`,
		`17:57: circuit.components[3].auto_scale.auto_scaler.scaling_parameters.max_scale_in_percentage: got 101, want at most 100`,
		`18:38: circuit.components[4].ema.parameters.ema_window: got text "0s", want more than 0s`,
		`18:106: circuit.components[4].ema.parameters.correction_factor_on_min_envelope_violation: got 0.5, want at least 1`,
		`18:156: circuit.components[4].ema.parameters.correction_factor_on_max_envelope_violation: got 1.5, want at most 1`,
	},
	"required-empty.yaml": {
		`3:42: circuit.components[0].alerter.parameters.alert_name: got empty text, want some text`,
		`4:56: circuit.components[1].flow_control.sampler.parameters.selectors: got an empty list, want at least one item`,
		`5:73: circuit.components[2].flow_control.sampler.parameters.selectors[0].control_point: got empty text, want some text`,
		`10:24: resources.flow_control.classifiers[0].rego.labels: got an empty mapping, want at least one member`,
		`10:36: resources.flow_control.classifiers[0].rego.module: got empty text, want some text`,
	},
	"required-missing.yaml": {
		`4:9: circuit.components[0].flow_control.rate_limiter.selectors: missing; want a list`,
		`5:11: circuit.components[0].flow_control.rate_limiter.in_ports.fill_amount: missing; want a port such as {constant_signal: {value: 10}} or {signal_name: NAME}`,
		`7:11: circuit.components[0].flow_control.rate_limiter.parameters.interval: missing; want a duration such as "30s" or "1m30s"`,
		`9:9: circuit.components[1].flow_control.concurrency_limiter.in_ports: missing; want a mapping`,
		`9:9: circuit.components[1].flow_control.concurrency_limiter.parameters: missing; want a mapping`,
		`9:9: circuit.components[1].flow_control.concurrency_limiter.selectors: missing; want a list`,
		`10:7: circuit.components[2].decider.operator: missing; want text`,
	},
	"required-null.yaml": {
		`4:9: circuit.components[0].alerter.parameters.alert_name: missing; want text`,
	},
	"resources.yaml": {
		`4:74: resources.flow_control.flux_meters.a.static_buckets.buckets[1]: got number 1, want more than the bound before it, 1`,
		`5:64: resources.flow_control.flux_meters.b.linear_buckets: got static_buckets and linear_buckets, want only one of them`,
		`5:88: resources.flow_control.flux_meters.b.linear_buckets.width: got 0, want more than 0`,
		`5:98: resources.flow_control.flux_meters.b.linear_buckets.count: got 5000, want at most 1000`,
		`6:85: resources.flow_control.flux_meters.c.exponential_buckets_range.max: got number 1, want more than min, 2`,
		`7:70: resources.flow_control.flux_meters.d.static_buckets.buckets: got an empty list, want at least one item`,
		`11:11: resources.flow_control.classifiers[0].rules.user-id: got label "user-id", want letters, digits and '_', not beginning with a digit, and no keyword of Rego`,
		`12:11: resources.flow_control.classifiers[0].rules.import: got label "import", want letters, digits and '_', not beginning with a digit, and no keyword of Rego`,
		`13:18: resources.flow_control.classifiers[0].rules.path.extractor: got none, want one of from, json, address, jwt, path_templates, cel`,
	},
	"second-document.yaml": {
		`3:8: a second document in one file; put each document into its own file`,
	},
	"signal-private.yaml": {
		`7:56: circuit.components[1].nested_circuit.components[1].inverter.in_ports.input.signal_name: no component of this circuit produces the signal "OUTSIDE"; known here: INSIDE`,
		`8:50: circuit.components[2].inverter.in_ports.input.signal_name: no component of this circuit produces the signal "INSIDE"; known here: OUTSIDE`,
	},
	"signal-two-producers.yaml": {
		`4:47: circuit.components[1].max.out_ports.output.signal_name: signal "A" has a producer already, circuit.components[0].variable.out_ports.output; choose another name`,
	},
	"signal-undefined.yaml": {
		`4:47: circuit.components[1].max.in_ports.inputs[0].signal_name: no component of this circuit produces the signal "SETPIONT"; did you mean "SETPOINT"?`,
		`4:72: circuit.components[1].max.in_ports.inputs[1].signal_name: no component of this circuit produces the signal "LATENCY"; known here: SETPOINT`,
	},
	"status.yaml": {
		`3:74: circuit.components[0].flow_control.sampler.parameters.denied_response_status_code: got text "TooManyRequest", want an HTTP status such as TooManyRequests or 429; did you mean "TooManyRequests"?`,
		`4:74: circuit.components[1].flow_control.sampler.parameters.denied_response_status_code: got number 100, want an HTTP status such as TooManyRequests or 429`,
		`5:74: circuit.components[2].flow_control.sampler.parameters.denied_response_status_code: got number 999, want an HTTP status such as TooManyRequests or 429`,
		`6:74: circuit.components[3].flow_control.sampler.parameters.denied_response_status_code: got true, want an HTTP status such as TooManyRequests or 429`,
	},
	"syntax-bracket.yaml": {
		`2:15: invalid YAML: sequence end token ']' not found`,
	},
	"syntax-indent.yaml": {
		`3:2: invalid YAML: value is not allowed in this context`,
	},
	"syntax-quote.yaml": {
		`1:14: invalid YAML: could not find end character of single-quoted text`,
	},
	"syntax-tab.yaml": {
		`2:1: invalid YAML: a tab at the beginning of a line; indent with spaces`,
	},
	"tag.yaml": {
		`2:24: got the YAML tag !!str, want a plain value; leave the tag out; quote a value to make it text`,
	},
	"unknown-field.yaml": {
		`2:3: circuit.evaluation_intervall: unknown field; did you mean "evaluation_interval"?`,
		`5:9: circuit.components[0].flow_control.rate_limitter: unknown field; did you mean "rate_limiter"?`,
		`8:9: circuit.components[1].alerter.in_port: unknown field; did you mean "in_ports"?`,
		`11:11: circuit.components[1].alerter.parameters.banana: unknown field; known here: alert_name, severity, resolve_timeout, alert_channels, labels`,
	},
	"values-to-policy-parser.yaml": {
		`1:1: these are the values of a blueprint, not a policy; render the blueprint first`,
	},
	"want-boolean.yaml": {
		`3:40: circuit.components[0].bool_variable.constant_output: got text "yes", want true or false; did you mean true (without quotes)?`,
		`4:40: circuit.components[1].bool_variable.constant_output: got number 0, want true or false; did you mean false (without quotes)?`,
		`5:40: circuit.components[2].bool_variable.constant_output: got text "maybe", want true or false`,
	},
	"want-list.yaml": {
		`3:5: circuit.components: got a mapping, want a list; begin the item with "- "`,
	},
	"want-mapping.yaml": {
		`1:10: circuit: got number 5, want a mapping`,
	},
	"want-number.yaml": {
		`3:35: circuit.components[0].integrator.initial_value: got text "many", want a number`,
		`4:35: circuit.components[1].integrator.initial_value: got number .inf, want a finite number`,
		`5:35: circuit.components[2].integrator.initial_value: got text "NaN", want a number`,
		`6:35: circuit.components[3].integrator.initial_value: got true, want a number`,
	},
	"want-text.yaml": {
		`5:23: circuit.components[0].alerter.parameters.alert_name: got number 5, want text; put it in quotes: "5"`,
		`6:26: circuit.components[0].alerter.parameters.labels.team: got true, want text; put it in quotes: "true"`,
		`7:28: circuit.components[0].alerter.parameters.alert_channels[0]: got nothing (null), want text`,
	},
	"want-whole-number.yaml": {
		`3:66: circuit.components[0].pid_controller.parameters.reset_after_invalid_samples: got number 1.5, want a whole number`,
		`4:66: circuit.components[1].pid_controller.parameters.reset_after_invalid_samples: got number 3000000000, want a whole number`,
		`5:66: circuit.components[2].pid_controller.parameters.reset_after_invalid_samples: got 0, want at least 1`,
	},
	"workload.yaml": {
		`9:53: circuit.components[0].flow_control.concurrency_scheduler.scheduler.default_workload_parameters.priority: got 0, want more than 0`,
		`9:64: circuit.components[0].flow_control.concurrency_scheduler.scheduler.default_workload_parameters.tokens: got -1, want at least 0`,
		`11:72: circuit.components[0].flow_control.concurrency_scheduler.scheduler.workloads[0].parameters.priority: got -1, want more than 0`,
		`11:84: circuit.components[0].flow_control.concurrency_scheduler.scheduler.workloads[0].parameters.tokens: got text "1e308", want at most 9007199254740992`,
		`12:72: circuit.components[0].flow_control.concurrency_scheduler.scheduler.workloads[1].parameters.priority: got text "1e308", want at most 1000000000`,
		`13:24: circuit.components[0].flow_control.concurrency_scheduler.scheduler.workloads[2].name: duplicate workload name "paid", first used by workloads[0]`,
		`13:72: circuit.components[0].flow_control.concurrency_scheduler.scheduler.workloads[2].parameters.priority: got text "1e-9", want at least 0.000001`,
		`13:93: circuit.components[0].flow_control.concurrency_scheduler.scheduler.workloads[2].parameters.queue_timeout: got text "-1s", want a duration from 0 to 10 years`,
		`14:17: circuit.components[0].flow_control.concurrency_scheduler.scheduler.workloads[3].label_matcher: missing; want a mapping`,
	},
}
