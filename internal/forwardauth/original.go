// SPDX-License-Identifier: Apache-2.0

package forwardauth

import (
	"io"
	"net"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"

	"github.com/sluice-project/sluice/internal/classify"
)

// ownPrefix begins headers that are for this package. They are no labels.
const (
	ownPrefix   = "Sluice-"
	labelPrefix = ownPrefix + "Label-"
)

// mostBody is how much of a body classifiers see.
const mostBody = 64 << 10

// original is the request that the proxy holds. Two families of headers describe it, and only the one that the URL
// chooses is believed, because a proxy that writes the one lets its clients write the other:
//
//	             from=forwarded (Traefik, Caddy)   from=original (nginx, ingress-nginx)
//	method       X-Forwarded-Method                X-Original-Method
//	scheme       X-Forwarded-Proto                 that of X-Original-URL
//	host         X-Forwarded-Host                  that of X-Original-URL
//	path         X-Forwarded-Uri                   that of X-Original-URL, else X-Original-URI
//	client       X-Forwarded-For                   X-Real-IP, else X-Forwarded-For
//
// The client is the last address of X-Forwarded-For, or with hops=1 the one before. What is missing stays
// unknown, except the method, which is then that of the question.
func (s *settings) original(r *http.Request) *classify.Request {
	h := r.Header
	out := &classify.Request{ID: h.Get("X-Request-Id"), Headers: s.headersOf(h), Size: -1}
	if s.byOriginal {
		out.Method = h.Get("X-Original-Method")
		out.Path = h.Get("X-Original-Uri")
		if scheme, host, path, ok := cutURL(h.Get("X-Original-Url")); ok {
			out.Scheme, out.Host, out.Path = scheme, host, path
		}
		out.Source = address(h.Get("X-Real-Ip"))
	} else {
		out.Method = h.Get("X-Forwarded-Method")
		out.Scheme, out.Host, out.Path = h.Get("X-Forwarded-Proto"), h.Get("X-Forwarded-Host"), h.Get("X-Forwarded-Uri")
	}
	if out.Method == "" {
		out.Method = r.Method
	}
	if out.Source.Text == "" {
		out.Source = address(hop(h["X-Forwarded-For"], s.hops))
	}
	if readBody(r, out); s.size > 0 {
		out.Size = int64(s.size)
	}
	return out
}

// cutURL takes a URL apart as the proxy put it together: $scheme://$http_host$request_uri. What the client wrote is
// not parsed, because a path that is no good URL must not make the request one without a path.
func cutURL(text string) (scheme, host, path string, ok bool) {
	scheme, rest, ok := strings.Cut(text, "://")
	if !ok {
		return "", "", "", false
	}
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		return scheme, rest, "/", rest != ""
	}
	host, path = rest[:end], rest[end:]
	if path, _, _ = strings.Cut(path, "#"); !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	return scheme, host, path, host != ""
}

// readBody takes the beginning of a body, if one came.
func readBody(r *http.Request, out *classify.Request) {
	if r.Body == nil || r.ContentLength == 0 {
		return
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, mostBody))
	if out.Body = string(body); err != nil {
		return // the rest did not arrive: what is there may serve
	}
	if out.Size = r.ContentLength; out.Size < 0 && len(body) < mostBody {
		out.Size = int64(len(body))
	}
}

// hop is the address that stands n before the last one of X-Forwarded-For, or the first one when there are fewer.
func hop(lines []string, n int) string {
	last := ""
	for i := len(lines) - 1; i >= 0; i-- {
		rest := lines[i]
		for rest != "" {
			at := strings.LastIndexByte(rest, ',')
			text := textproto.TrimString(rest[at+1:])
			rest = rest[:max(at, 0)]
			if text == "" {
				continue
			}
			if last = text; n == 0 {
				return last
			}
			n--
		}
	}
	return last
}

// address reads "192.0.2.1", "192.0.2.1:80", "2001:db8::1" and "[2001:db8::1]:80". What is no address is none.
func address(text string) classify.Address {
	if host, port, err := net.SplitHostPort(text); err == nil {
		if n, err := strconv.ParseUint(port, 10, 16); err == nil && net.ParseIP(host) != nil {
			return classify.Address{Text: host, Port: uint32(n)}
		}
		return classify.Address{}
	}
	if text = strings.TrimSuffix(strings.TrimPrefix(text, "["), "]"); net.ParseIP(text) == nil {
		return classify.Address{}
	}
	return classify.Address{Text: text}
}

// notOriginal are headers of the question itself: hop by hop, or what describes the request.
var notOriginal = map[string]bool{
	"Connection": true, "Keep-Alive": true, "Proxy-Connection": true, "Proxy-Authenticate": true, "Proxy-Authorization": true,
	"Te": true, "Trailer": true, "Transfer-Encoding": true, "Upgrade": true, "Content-Length": true,
	"X-Forwarded-Method": true, "X-Forwarded-Proto": true, "X-Forwarded-Host": true, "X-Forwarded-Uri": true,
	"X-Original-Method": true, "X-Original-Uri": true, "X-Original-Url": true,
}

// headersOf are the headers of the request.
func (s *settings) headersOf(h http.Header) map[string]string {
	out := make(map[string]string, len(h))
	for name, values := range h {
		if notOriginal[name] || strings.HasPrefix(name, ownPrefix) {
			continue
		}
		if len(values) == 1 {
			out[lower(name)] = values[0]
			continue
		}
		out[lower(name)] = strings.Join(values, ", ")
	}
	for _, line := range h["Connection"] { // names of further headers that are hop by hop
		for name := range strings.SplitSeq(line, ",") {
			delete(out, strings.ToLower(textproto.TrimString(name)))
		}
	}
	return out
}

// known are headers that most requests have, so that their names need not be made anew.
var known = func() map[string]string {
	names := make(map[string]string)
	for _, name := range []string{
		"Accept", "Accept-Encoding", "Accept-Language", "Authorization", "Baggage", "Cache-Control", "Content-Type", "Cookie",
		"Dnt", "If-Modified-Since", "If-None-Match", "Origin", "Pragma", "Priority", "Referer", "Sec-Fetch-Dest", "Sec-Fetch-Mode",
		"Sec-Fetch-Site", "Sec-Fetch-User", "Traceparent", "Tracestate", "Upgrade-Insecure-Requests", "User-Agent", "Via",
		"X-Api-Key", "X-Forwarded-For", "X-Forwarded-Port", "X-Forwarded-Server", "X-Real-Ip", "X-Request-Id",
	} {
		names[name] = strings.ToLower(name)
	}
	return names
}()

func lower(name string) string {
	if l, ok := known[name]; ok {
		return l
	}
	return strings.ToLower(name)
}
