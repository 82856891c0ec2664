// SPDX-License-Identifier: Apache-2.0

package proxytest

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sluice-project/sluice/test/doors/doorstest"
)

// BodyPolicy admits two mutations of GraphQL with each API key, and labels what else it sees of bodies.
const BodyPolicy = `blueprint: rate-limiting/base
policy:
  policy_name: mutations
  rate_limiter:
    bucket_capacity: 2
    fill_amount: 1
    parameters:
      interval: 3600s
      limit_by_label_key: http.request.header.x_api_key
    selectors:
      - control_point: shop
        label_matcher:
          match_labels: {operation: mutation}
  resources:
    flow_control:
      classifiers:
        - selectors: [{control_point: shop}]
          rego:
            labels: {operation: {}, cut: {}, size: {}}
            module: |
              package bodies
              operation := graphql.parse_query(input.parsed_body.query).Operations[0].Operation
              cut := "yes" if input.truncated_body
              size := sprintf("%d", [input.attributes.request.http.size])
        - selectors: [{control_point: shop}]
          rules:
            got: {extractor: {cel: 'string(size(request.body))'}}
`

// WithBodies are the options of a Sluice that has BodyPolicy and further ones, and time for Rego when tests share a processor.
func WithBodies(t testing.TB, policies ...string) doorstest.Options {
	t.Helper()
	file := filepath.Join(t.TempDir(), "sluice.yaml")
	if err := os.WriteFile(file, []byte("classifiers:\n  timeout: 1s\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return doorstest.Options{Policies: append(policies, BodyPolicy), Args: []string{"--config", file}}
}

// JSON is the media type of a body.
const JSON = "application/json"

// Mutation is a body with a mutation, with n further bytes.
func Mutation(n int) string {
	return `{"query": "mutation Add { add { id } }", "variables": {"x": "` + strings.Repeat("x", n) + `"}}`
}

// Binary is a body that is no text, and has what ends bodies in other places.
func Binary() string {
	var all strings.Builder
	for i := range 256 {
		all.WriteByte(byte(i))
	}
	return strings.Repeat(all.String()+"\r\n0\r\n\r\n\x00", 20)
}

// Post sends a body of a media type with an API key, in chunks if its length is not to be known. It checks that the
// body arrives at the shop unchanged if the proxy lets it pass, and returns the status and the labels in the baggage there.
func (p *Proxy) Post(t *testing.T, client *http.Client, key, kind, body string, chunks bool) (status int, labels map[string]string) {
	t.Helper()
	var source io.Reader = strings.NewReader(body)
	if chunks {
		source = pieces{source}
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.URL()+"/graphql", source)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Api-Key", key)
	r.Header.Set("Content-Type", kind)
	r.Header.Set("X-Envoy-Auth-Partial-Body", "true") // a client may say so, and nobody believes it
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return resp.StatusCode, nil
	}
	if got := p.Shop.Body(); got != body {
		t.Errorf("%s: the shop got another body of %d bytes, want the one of %d", key, len(got), len(body))
	}
	labels = make(map[string]string)
	for member := range strings.SplitSeq(p.Shop.Last().Get("Baggage"), ",") {
		name, value, _ := strings.Cut(member, "=")
		if value, err = url.QueryUnescape(value); err != nil {
			t.Error(err)
		}
		labels[strings.TrimSpace(name)] = value
	}
	return resp.StatusCode, labels
}

// pieces makes chunks of at most 1000 bytes, since net/http does not know how long it is.
type pieces struct{ rest io.Reader }

func (p pieces) Read(b []byte) (int, error) { return p.rest.Read(b[:min(len(b), 1000)]) }

// HTTP2 is a client that speaks HTTP/2 without TLS, in which bodies need neither a length nor chunks.
func HTTP2() *http.Client {
	protocols := &http.Protocols{}
	protocols.SetUnencryptedHTTP2(true)
	return &http.Client{Transport: &http.Transport{Protocols: protocols}, Timeout: doorstest.Patience}
}

// TestBodies needs BodyPolicy, and a proxy that sends the first 64 KiB of bodies.
func (p *Proxy) TestBodies(t *testing.T) {
	const bound = 64 << 10
	long := Mutation(100 << 10)
	for _, s := range []sample{
		{"short", JSON, Mutation(0), true, false},
		{"40 kB", JSON, Mutation(40 << 10), true, false},
		{"as much as is sent", JSON, Mutation(bound - len(Mutation(0))), true, false},
		{"a byte more", JSON, Mutation(bound - len(Mutation(0)) + 1), false, true},
		{"long", JSON, long, false, true},
		{"query", JSON, `{"query": "{ a }"}`, false, false},
		{"no JSON", JSON, Binary(), false, false},
		{"binary", "application/octet-stream", Binary(), false, false},
		{"long and binary", "application/octet-stream", strings.Repeat(Binary(), 100), false, false},
		{"empty", JSON, "", false, false},
	} {
		for _, chunks := range []bool{false, true} {
			p.testBody(t, s, chunks)
		}
	}
}

// sample is a body, and what classifiers make of it.
type sample struct {
	name, kind, body string
	mutation, cut    bool
}

func (p *Proxy) testBody(t *testing.T, s sample, chunks bool) {
	t.Helper()
	key := fmt.Sprintf("%s, chunks: %v", s.name, chunks)
	for i := range 3 {
		status, labels := p.Post(t, http.DefaultClient, key, s.kind, s.body, chunks)
		if s.mutation && i == 2 {
			if status != http.StatusTooManyRequests {
				t.Errorf("%s: got %d for the third mutation, want 429", key, status)
			}
			continue
		}
		if status != http.StatusOK {
			t.Errorf("%s: got %d for request %d, want 200", key, status, i+1)
			continue
		}
		if got := labels["operation"] == "mutation"; got != s.mutation {
			t.Errorf("%s: got the labels %v, want a mutation: %v", key, labels, s.mutation)
		}
		if got := labels["cut"] == "yes"; got != s.cut {
			t.Errorf("%s: got the labels %v, want one for a truncated body: %v", key, labels, s.cut)
		}
		if want := fmt.Sprint(len(s.body)); s.body != "" && !chunks && labels["size"] != want {
			t.Errorf("%s: got the labels %v, want the size %s", key, labels, want)
		}
	}
}

// TestRefused needs BodyPolicy, and a proxy that refuses bodies that it would not send whole.
func (p *Proxy) TestRefused(t *testing.T) {
	const bound = 64 << 10
	for n, want := range map[int]int{
		bound - len(Mutation(0)): http.StatusOK, bound - len(Mutation(0)) + 1: http.StatusRequestEntityTooLarge, 3 * bound: http.StatusRequestEntityTooLarge,
	} {
		for _, chunks := range []bool{false, true} {
			status, labels := p.Post(t, http.DefaultClient, fmt.Sprint(n, chunks), JSON, Mutation(n), chunks)
			if status != want || want == http.StatusOK && labels["operation"] != "mutation" {
				t.Errorf("%d further bytes, chunks: %v: got %d with the labels %v, want %d", n, chunks, status, labels, want)
			}
		}
	}
}

// TestNoBodies needs BodyPolicy, and a proxy whose configuration says nothing of bodies.
func (p *Proxy) TestNoBodies(t *testing.T) {
	for range 3 {
		status, labels := p.Post(t, http.DefaultClient, "ann", JSON, Mutation(0), false)
		if got := labels["got"]; status != http.StatusOK || got != "0" && got != "" {
			t.Errorf("got %d and %s bytes at Sluice, want 200 and no body there", status, got)
		}
	}
}
