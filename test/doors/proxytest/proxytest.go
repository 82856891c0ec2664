// SPDX-License-Identifier: Apache-2.0

// Package proxytest asks the same of every proxy that asks Sluice: limits by key with their headers, baggage, requests
// meant to confuse, and that nothing stops while Sluice is away.
package proxytest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-project/sluice/test/doors/doorstest"
)

// Shop is the service behind a proxy.
type Shop struct {
	// Addr is host:port.
	Addr string

	mu   sync.Mutex
	last http.Header
	body string
	seen int
	hold chan struct{} // requests of /slow wait until it is closed
}

// NewShop starts a shop. /slow waits until Release, /fail answers with 500, everything else says hello.
func NewShop(t testing.TB) *Shop {
	t.Helper()
	s := &Shop{hold: make(chan struct{})}
	server := httptest.NewServer(s)
	s.Addr = server.Listener.Addr().String()
	t.Cleanup(func() {
		s.Release()
		server.Close()
	})
	return s
}

// ServeHTTP implements http.Handler.
func (s *Shop) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body) // what arrives counts
	s.mu.Lock()
	s.last, s.body = r.Header.Clone(), string(body)
	s.seen++
	hold := s.hold
	s.mu.Unlock()
	switch r.URL.Path {
	case "/slow":
		select {
		case <-hold:
		case <-r.Context().Done():
		}
	case "/fail":
		w.WriteHeader(http.StatusInternalServerError)
	}
	_, _ = io.WriteString(w, "hello from the shop\n")
}

// Release lets the requests of /slow end.
func (s *Shop) Release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.hold)
	s.hold = make(chan struct{})
}

// Last are the headers of the request that came last.
func (s *Shop) Last() http.Header {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}

// Body is the body of the request that came last.
func (s *Shop) Body() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.body
}

// Seen is how many requests came.
func (s *Shop) Seen() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen
}

// Response is an answer with its body.
type Response struct {
	*http.Response
	Text string
}

// Get asks a proxy. The pairs are names and values of headers.
func Get(t testing.TB, url string, headers ...string) Response {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), doorstest.Patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return Response{resp, string(text)}
}

// Raw sends bytes and returns the status and the headers of the response, or 0 when the proxy closed the connection instead.
func Raw(t testing.TB, address, request string) (status int, header http.Header) {
	t.Helper()
	conn, err := (&net.Dialer{Timeout: doorstest.Patience}).DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(doorstest.Patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, request); err != nil {
		return 0, nil // it has been closed already
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return 0, nil
	}
	_ = resp.Body.Close() // only the head counts
	return resp.StatusCode, resp.Header
}

// Policy admits five requests with each API key at the control point shop, as the policies of the examples do, and puts
// the plan of the key into baggage.
const Policy = `blueprint: rate-limiting/base
policy:
  policy_name: shop-per-key
  rate_limiter:
    bucket_capacity: 5
    fill_amount: 1
    parameters:
      interval: 3600s
      limit_by_label_key: http.request.header.x_api_key
    selectors:
      - control_point: shop
  resources:
    flow_control:
      classifiers:
        - selectors:
            - control_point: shop
          rules:
            plan:
              extractor:
                from: request.http.headers.x-plan
`

// Proxy is a proxy that runs, with Policy in force at a Sluice that runs too.
type Proxy struct {
	// Addr is host:port of the proxy.
	Addr   string
	Sluice *doorstest.Server
	Shop   *Shop
	// SilentAdmit tells that the proxy can give clients no header of an answer that lets a request pass.
	SilentAdmit bool
	// ForgetsBaggage tells that the baggage of a request that passes without Sluice gets lost.
	ForgetsBaggage bool
}

// AwaitRoute waits until the proxy, which listens already, knows the shop.
func (p *Proxy) AwaitRoute(t testing.TB) {
	t.Helper()
	doorstest.Eventually(t, func() error {
		if got := Get(t, p.URL()+"/", "X-Api-Key", "waiting"); got.StatusCode != http.StatusOK {
			return fmt.Errorf("the proxy answers with %s", got.Status)
		}
		return nil
	})
}

// Await waits until the proxy, which is this process, listens.
func (p *Proxy) Await(t testing.TB, process *doorstest.Process) {
	t.Helper()
	doorstest.Eventually(t, func() error {
		if process.Ended() {
			t.Fatal("the proxy ended before it listened")
		}
		conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(t.Context(), "tcp", p.Addr)
		if err == nil {
			_ = conn.Close()
		}
		return err
	})
}

// URL is where the proxy serves.
func (p *Proxy) URL() string { return "http://" + p.Addr }

// TestLimits uses the limit of a key up.
func (p *Proxy) TestLimits(t *testing.T) {
	for i := range 5 {
		got := Get(t, p.URL()+"/items?page=2", "X-Api-Key", "ann")
		if got.StatusCode != http.StatusOK || got.Text != "hello from the shop\n" {
			t.Fatalf("request %d: got %s %q, want what the shop says", i+1, got.Status, got.Text)
		}
		if !p.SilentAdmit && (got.Header.Get("RateLimit") == "" || got.Header.Get("RateLimit-Policy") == "") {
			t.Errorf("request %d: got %v, want RateLimit headers", i+1, got.Header)
		}
	}
	seen := p.Shop.Seen()
	got := Get(t, p.URL()+"/items?page=2", "X-Api-Key", "ann")
	if got.StatusCode != http.StatusTooManyRequests || p.Shop.Seen() != seen {
		t.Fatalf("request 6: got %s, want 429 and no request at the shop", got.Status)
	}
	if n, err := strconv.Atoi(got.Header.Get("Retry-After")); err != nil || n < 3000 || n > 3600 {
		t.Errorf("Retry-After: got %q, want about an hour", got.Header.Get("Retry-After"))
	}
	if got.Header.Get("RateLimit") == "" || got.Header.Get("RateLimit-Policy") == "" {
		t.Errorf("got %v, want RateLimit headers", got.Header)
	}
	if strings.TrimSpace(got.Text) == "" || strings.Contains(got.Text, "shop-per-key") {
		t.Errorf("got the body %q, want a sentence for the public", got.Text)
	}
	if got := Get(t, p.URL()+"/items", "X-Api-Key", "bob"); got.StatusCode != http.StatusOK {
		t.Errorf("another key: got %s, want 200", got.Status)
	}
}

// TestBaggage looks at what reaches the shop.
func (p *Proxy) TestBaggage(t *testing.T) {
	Get(t, p.URL()+"/", "X-Api-Key", "baggage", "X-Plan", "gold", "Baggage", "tenant=t1")
	got := p.Shop.Last().Values("Baggage")
	if len(got) != 1 || !strings.Contains(got[0], "tenant=t1") || !strings.Contains(got[0], "plan=gold") {
		t.Errorf("the shop got the baggage %q, want one header with tenant and plan", got)
	}
	Get(t, p.URL()+"/", "X-Api-Key", "no baggage")
	if got := p.Shop.Last().Values("Baggage"); len(got) > 1 || len(got) == 1 && strings.Trim(got[0], " ") != "" {
		t.Errorf("the shop got the baggage %q that nobody made", got)
	}
}

// TestHostile sends what is meant to be judged as something else, to become a second request or header, or to break the
// proxy's question. Either the proxy refuses it or it is counted, and nothing of it becomes a header of its own.
func (p *Proxy) TestHostile(t *testing.T) {
	for i, lines := range []string{
		"X-Junk: a\rX-Smuggled: 1\r\n",
		"X-Junk: a\x00b\r\n",
		"X-Junk: \xff\xfe\xc3\x28\r\n",
		"X-Junk: " + strings.Repeat("x", 10<<10) + "\r\n",
		"X-Junk: " + strings.Repeat("x", 100<<10) + "\r\n",
		"X-Junk: \"\\\"},{\"x\": [\r\n",
		"Baggage: plan=a%0d%0aX-Smuggled%3a%201\r\n",
		"X-Plan: a%0d%0aX-Smuggled: 1\r\n",
		"X-Plan: \xc3\xa4\xff;=,\r\n",
		"Sluice-Label-User: x\r\nSluice-Deny-Status: 200\r\nSluice-Verdict: admit\r\nSluice-Status: 200\r\n",
		"X-Forwarded-Uri: /other\r\nX-Forwarded-Method: OPTIONS\r\nX-Original-Url: http://x/y\r\n",
		"Connection: X-Api-Key, close\r\n",
	} {
		key := "hostile" + strconv.Itoa(i)
		request := "GET /items HTTP/1.1\r\nHost: shop.example\r\nX-Api-Key: " + key + "\r\n" + lines
		if !strings.Contains(lines, "Connection:") {
			request += "Connection: close\r\n"
		}
		admitted := 0
		for range 7 {
			status, header := Raw(t, p.Addr, request+"\r\n")
			switch status {
			case 0, http.StatusBadRequest, http.StatusTooManyRequests, http.StatusRequestHeaderFieldsTooLarge:
			case http.StatusOK:
				if p.Shop.Last().Get("X-Api-Key") == key { // a proxy may take it for hop by hop
					admitted++
				}
			default:
				t.Errorf("%.40q: got %d, want 200, 400, 429 or 431", lines, status)
			}
			if header.Get("X-Smuggled") != "" {
				t.Errorf("%.40q: a header of the response was smuggled", lines)
			}
		}
		if admitted > 5 {
			t.Errorf("%.40q: %d requests were admitted, want at most 5", lines, admitted)
		}
		if p.Shop.Last().Get("X-Smuggled") != "" {
			t.Errorf("%.40q: a header of the request was smuggled", lines)
		}
	}
	if got := Get(t, p.URL()+"/", "X-Api-Key", "after"); got.StatusCode != http.StatusOK {
		t.Errorf("after all that: got %s, want 200", got.Status)
	}
}

// TestDown stops Sluice. It must come last. With open, requests pass; otherwise they are refused.
func (p *Proxy) TestDown(t *testing.T, open bool) {
	if err := p.Sluice.Stop(); err != nil {
		t.Error(err)
	}
	for range 8 {
		begin := time.Now()
		got := Get(t, p.URL()+"/", "X-Api-Key", "ann", "Baggage", "tenant=t1")
		if passed := got.StatusCode == http.StatusOK; passed != open || !passed && got.StatusCode < 500 {
			t.Errorf("without Sluice: got %s", got.Status)
		}
		if open && !p.ForgetsBaggage && !strings.Contains(p.Shop.Last().Get("Baggage"), "tenant=t1") {
			t.Errorf("without Sluice the baggage got lost: %v", p.Shop.Last())
		}
		if took := time.Since(begin); took > 2*time.Second {
			t.Errorf("without Sluice a request took %s", took)
		}
	}
}

// TestHangs lets Sluice take connections, and answer nothing: requests pass within the time-outs of the example, and are
// counted again when it is back. That may take as long as the proxy remembers the failure.
func (p *Proxy) TestHangs(t *testing.T) {
	p.Sluice.Signal(syscall.SIGSTOP)
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		begin := time.Now()
		r, err := http.NewRequestWithContext(t.Context(), method, p.URL()+"/", strings.NewReader("body"))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if got := p.Shop.Body(); got != "body" {
			t.Errorf("%s: the shop got the body %q, want %q", method, got, "body")
		}
		if took := time.Since(begin); resp.StatusCode != http.StatusOK || took > 3*time.Second {
			t.Errorf("%s while Sluice hangs: got %s after %s, want 200 within 3 s", method, resp.Status, took)
		}
	}
	p.Sluice.Signal(syscall.SIGCONT)
	doorstest.Eventually(t, func() error {
		if got := Get(t, p.URL()+"/", "X-Api-Key", "hangs"); got.StatusCode != http.StatusTooManyRequests {
			return fmt.Errorf("after it is back: got %s, want 429 in the end", got.Status)
		}
		return nil
	})
}

// TestAnotherSluice replaces Sluice by one that has counted nothing yet, whose first requests must not pass uncounted
// because of connections that the proxy had kept.
func (p *Proxy) TestAnotherSluice(t *testing.T) {
	Get(t, p.URL()+"/", "X-Api-Key", "kept")
	if err := p.Sluice.Stop(); err != nil {
		t.Error(err)
	}
	p.Sluice = doorstest.Sluice(t, doorstest.Options{Policies: []string{Policy}, Listen: p.Sluice.Addr})
	admitted := 0
	for range 8 {
		if Get(t, p.URL()+"/", "X-Api-Key", "another").StatusCode == http.StatusOK {
			admitted++
		}
	}
	if admitted != 5 {
		t.Errorf("after a restart of Sluice, %d requests were admitted, want 5", admitted)
	}
}

// All runs all tests.
func (p *Proxy) All(t *testing.T) {
	t.Run("limits", p.TestLimits)
	t.Run("baggage", p.TestBaggage)
	t.Run("hostile", p.TestHostile)
	p.TestAnotherSluice(t) // not run by itself, or the other one would end with it
	t.Run("hangs", p.TestHangs)
	t.Run("down", func(t *testing.T) { p.TestDown(t, true) })
}

// Token is what a Sluice started with WithToken asks clients for.
const Token = "0123456789abcdef0123456789abcdef"

// WithToken are the options of a Sluice that asks for a token and has Policy.
func WithToken(t testing.TB) doorstest.Options {
	t.Helper()
	dir := t.TempDir()
	files := map[string]string{
		"token": Token, "sluice.yaml": "auth:\n  tokens:\n    - {name: proxy, role: client, token_file: " + dir + "/token}\n",
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return doorstest.Options{Policies: []string{Policy}, Args: []string{"--config", filepath.Join(dir, "sluice.yaml")}}
}

// TestToken uses a limit up by way of a proxy that has the token, whatever the user sends.
func (p *Proxy) TestToken(t *testing.T) {
	admitted := 0
	for range 7 {
		got := Get(t, p.URL()+"/", "X-Api-Key", "ann", "Authorization", "Bearer of-the-user", "Sluice-Token", "of-the-user")
		if got.StatusCode == http.StatusOK {
			admitted++
		}
		if seen := fmt.Sprint(p.Shop.Last(), got.Header, got.Text); strings.Contains(seen, Token) {
			t.Errorf("the token of the proxy is in what the shop or the client sees: %s", seen)
		}
	}
	if admitted != 5 {
		t.Errorf("%d requests were admitted, want 5", admitted)
	}
	if got := p.Shop.Last().Get("Authorization"); got != "Bearer of-the-user" {
		t.Errorf("the shop got the authorization %q, want that of the user", got)
	}
}

// SlotPolicy admits two requests at a time.
const SlotPolicy = `blueprint: concurrency-limiting/base
policy:
  policy_name: shop-at-a-time
  concurrency_limiter:
    max_concurrency: 2
    parameters:
      max_inflight_duration: 600s
    selectors:
      - control_point: shop
`

// TestSlots fills the slots of SlotPolicy with requests that take long, and checks that they come back: after an answer,
// after an error of the shop, and after a client that left.
func (p *Proxy) TestSlots(t *testing.T) {
	status := func() int { return Get(t, p.URL()+"/").StatusCode }
	fill := func(ctx context.Context) *sync.WaitGroup {
		before := p.Shop.Seen()
		var running sync.WaitGroup
		for range 2 {
			running.Go(func() {
				r, _ := http.NewRequestWithContext(ctx, http.MethodGet, p.URL()+"/slow", nil) // the URL is right
				if resp, err := http.DefaultClient.Do(r); err == nil {
					resp.Body.Close()
				}
			})
		}
		doorstest.Eventually(t, func() error {
			if got := p.Shop.Seen() - before; got < 2 {
				return fmt.Errorf("%d of 2 requests are at the shop", got)
			}
			return nil
		})
		if got := status(); got != http.StatusTooManyRequests && got != http.StatusServiceUnavailable {
			t.Errorf("a third request at a time: got %d, want a denial", got)
		}
		return &running
	}
	free := func(after string) {
		doorstest.Eventually(t, func() error {
			if got := p.Sluice.Metric("sluice_limiter_in_flight_tokens", "policy", "shop-at-a-time"); got != 0 {
				return fmt.Errorf("after %s, %v slots are held", after, got)
			}
			return nil
		})
	}
	running := fill(t.Context())
	p.Shop.Release()
	running.Wait()
	free("answers")
	for range 5 {
		if got := Get(t, p.URL()+"/fail"); got.StatusCode != http.StatusInternalServerError {
			t.Errorf("an error of the shop: got %s", got.Status)
		}
		free("an error of the shop")
	}
	ctx, leave := context.WithCancel(t.Context())
	running = fill(ctx)
	leave()
	running.Wait()
	p.Shop.Release()
	free("clients that left")
}

// GuideAddresses replaces the addresses that all guides to proxies have.
func GuideAddresses(sluice, proxy string, app int) []string {
	return []string{
		"sluice serve", "sluice serve --listen " + sluice, "sluice health", "sluice health --server " + sluice,
		"127.0.0.1 9000", "127.0.0.1 " + strconv.Itoa(app), "http://127.0.0.1:9090", "http://" + proxy,
	}
}
