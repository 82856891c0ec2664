// SPDX-License-Identifier: Apache-2.0

package classify

import (
	"strconv"
	"strings"
)

// Request is what a door knows about an HTTP request. The zero Request is valid and has the labels of a request
// about which nothing is known. Its fields must not change while a flow uses it. Methods read baggage on first
// use: call them from one goroutine at a time.
//
// The labels of a request are these; no two of them can have the same key:
//
//	http.method, http.target (path and query), http.host, http.scheme,
//	http.flavor (1.0, 1.1, 2.0, 3.0), http.request_content_length (-1: not known),
//	http.path (only with Envoy)
//	http.request.header.<name>, name in lower case and '-' as '_'; none for names beginning with ':'
//	aperture.source_fqdns, aperture.destination_fqdns: services, joined with ','
//	the members of the baggage header, by their keys, except http.* and the two above: what a request is and
//	where it comes from, nobody can say otherwise
//
// Those of headers and http.request_content_length are not for analytics, the others are.
type Request struct {
	// ID identifies the request; may be empty.
	ID string
	// Method, Path (with the query), Host, Scheme and Protocol ("HTTP/1.1") as they came.
	Method, Path, Host, Scheme, Protocol string
	// Headers by name in lower case; several values are joined with ", ".
	Headers map[string]string
	// Size of the body in bytes; negative: not known. Body may be its beginning only.
	Size int64
	Body string
	// Source and Destination of the connection.
	Source, Destination Address
	// SourceServices and DestinationServices have these addresses, as far as discovery knows.
	SourceServices, DestinationServices []string
	// Discovered tells that discovery was asked: the services of an address that it does not know read
	// "UNKNOWN". Without, and without services, there are no labels of services.
	Discovered bool
	// Metadata is what proxies attach: metadataContext.filterMetadata of Envoy.
	Metadata map[string]any
	// Envoy tells that Envoy asks. Such requests have the label http.path, and only of them the header
	// x-envoy-auth-partial-body counts, which anybody could send.
	Envoy bool

	baggage baggage
}

// Discover fills in the services of both ends. services is the directory of services by address; nil: there is no
// discovery, and nothing changes.
func (r *Request) Discover(services func(address string) []string) {
	if services == nil {
		return
	}
	r.Discovered = true
	if r.Source.Text != "" {
		r.SourceServices = services(r.Source.Text)
	}
	if r.Destination.Text != "" {
		r.DestinationServices = services(r.Destination.Text)
	}
}

// Address is one end of a connection.
type Address struct {
	// Text is an IP address, or the path of a Unix socket.
	Text string
	// Port is 0 with a path.
	Port uint32
}

// The keys of labels of requests.
const (
	keyMethod            = "http.method"
	keyTarget            = "http.target"
	keyHost              = "http.host"
	keyScheme            = "http.scheme"
	keyFlavor            = "http.flavor"
	keyLength            = "http.request_content_length"
	keyPath              = "http.path"
	keySources           = "aperture.source_fqdns"
	keyDestinations      = "aperture.destination_fqdns"
	ownPrefix            = "http." // of all labels that are made of the request
	headerPrefix         = "http.request.header."
	unknownService       = "UNKNOWN"
	maxHeaderName        = 128 // longer names of headers are looked up by going through all of them
	baggageHeader        = "baggage"
	pseudo          byte = ':'
)

// Label finds one label of the request, without making all of them. It allocates only when it first meets baggage,
// for several services of one address, and for http.request_content_length.
func (r *Request) Label(key string) (value string, ok bool) {
	switch {
	case key == keySources:
		return r.services(r.SourceServices)
	case key == keyDestinations:
		return r.services(r.DestinationServices)
	case !strings.HasPrefix(key, ownPrefix):
		return r.fromBaggage(key)
	}
	if name, isHeader := strings.CutPrefix(key, headerPrefix); isHeader {
		return r.header(name)
	}
	return r.attribute(key)
}

// isOwn tells whether a label with the key is made of the request or of discovery.
func isOwn(key string) bool {
	return strings.HasPrefix(key, ownPrefix) || key == keySources || key == keyDestinations
}

// attribute finds a label that every request has.
func (r *Request) attribute(key string) (value string, ok bool) {
	switch key {
	case keyMethod:
		return r.Method, true
	case keyTarget:
		return r.Path, true
	case keyHost:
		return r.Host, true
	case keyScheme:
		return r.Scheme, true
	case keyFlavor:
		return flavor(r.Protocol), true
	case keyLength:
		return strconv.FormatInt(max(r.Size, -1), 10), true
	case keyPath:
		return withoutQuery(r.Path), r.Envoy
	}
	return "", false
}

// EachLabel calls f with every label of the request, in no order; telemetry tells whether it may be shown in
// analytics.
func (r *Request) EachLabel(f func(key, value string, telemetry bool)) {
	for _, key := range [...]string{keyMethod, keyTarget, keyHost, keyScheme, keyFlavor, keyLength, keyPath} {
		if value, ok := r.attribute(key); ok {
			f(key, value, key != keyLength)
		}
	}
	r.eachHeader(func(label, value string) { f(headerPrefix+label, value, false) })
	if sources, ok := r.services(r.SourceServices); ok {
		f(keySources, sources, true)
	}
	if destinations, ok := r.services(r.DestinationServices); ok {
		f(keyDestinations, destinations, true)
	}
	for _, m := range r.members() {
		f(m.key, m.value, true)
	}
}

// services is the text of services of an address.
func (r *Request) services(names []string) (string, bool) {
	switch len(names) {
	case 0:
		return unknownService, r.Discovered
	case 1:
		return names[0], true
	}
	return strings.Join(names, ","), true
}

// header finds the header whose label is label. Of several, the one with most dashes wins: underscores in names of
// headers are how one tries to pass for another.
func (r *Request) header(label string) (string, bool) {
	if label == "" || label[0] == pseudo || len(r.Headers) == 0 {
		return "", false
	}
	underscores := strings.Count(label, "_")
	if underscores == 0 {
		value, ok := r.Headers[label]
		return value, ok
	}
	if len(label) > maxHeaderName {
		return r.searchHeader(label)
	}
	var buffer [maxHeaderName]byte
	dashed := buffer[:copy(buffer[:], label)]
	for i := range dashed {
		if dashed[i] == '_' {
			dashed[i] = '-'
		}
	}
	if value, ok := r.Headers[string(dashed)]; ok {
		return value, true
	}
	if underscores == 1 {
		value, ok := r.Headers[label]
		return value, ok
	}
	return r.searchHeader(label)
}

// searchHeader goes through all headers for the one with the label.
func (r *Request) searchHeader(label string) (string, bool) {
	found, ok := "", false
	for name := range r.Headers {
		if hasLabel(name, label) && (!ok || prefer(name, found)) {
			found, ok = name, true
		}
	}
	return r.Headers[found], ok
}

// eachHeader calls f for the label of every header.
func (r *Request) eachHeader(f func(label, value string)) {
	var odd map[string]string // names with underscores, by label
	for name, value := range r.Headers {
		if name == "" || name[0] == pseudo {
			continue
		}
		label := strings.ReplaceAll(name, "-", "_")
		if !strings.Contains(name, "_") {
			f(label, value)
			continue
		}
		if other, ok := odd[label]; !ok || prefer(name, other) {
			if odd == nil {
				odd = map[string]string{}
			}
			odd[label] = name
		}
	}
	for label, name := range odd {
		if _, better := r.Headers[strings.ReplaceAll(label, "_", "-")]; !better {
			f(label, r.Headers[name])
		}
	}
}

// prefer tells whether the label of two headers is the value of a rather than b.
func prefer(a, b string) bool {
	if m, n := strings.Count(a, "-"), strings.Count(b, "-"); m != n {
		return m > n
	}
	return a < b
}

// hasLabel tells whether the label of the header name is label.
func hasLabel(name, label string) bool {
	if len(name) != len(label) {
		return false
	}
	for i := range len(name) {
		if c := name[i]; c != label[i] && (c != '-' || label[i] != '_') {
			return false
		}
	}
	return true
}

// flavor is the version of HTTP as OpenTelemetry writes it.
func flavor(protocol string) string {
	switch protocol {
	case "HTTP/1.0":
		return "1.0"
	case "HTTP/1.1":
		return "1.1"
	case "HTTP/2", "HTTP/2.0":
		return "2.0"
	case "HTTP/3", "HTTP/3.0":
		return "3.0"
	}
	return protocol
}

func withoutQuery(path string) string {
	path, _, _ = strings.Cut(path, "?")
	return path
}
