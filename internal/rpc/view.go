// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"context"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/structpb"

	"github.com/sluice-project/sluice/internal/classify"
)

// view is what of a flow is shown to somebody: texts that are not too long, and no secrets. Values of headers and of
// parts of a query whose name says that they are secrets (authorization, cookie, password, token and so on) are
// hidden from everybody; bodies are hidden from viewers.
type view struct{ bodies bool }

// viewOf is the view of who makes a call. When nobody was asked for a token, that is all of it.
func viewOf(ctx context.Context) view { return view{bodies: identityOf(ctx).Role != RoleViewer} }

// Bounds on what is shown of one flow: far more than people read, and far less than a message may have.
const (
	maxShownLabels  = 500
	maxShownKey     = 256
	maxShownValue   = 1_024
	maxShownBody    = 16 << 10
	maxShownMessage = 512
)

const headerLabel = "http.request.header."

// isPath tells whether a label is the path of a request, with its query.
func isPath(key string) bool { return key == "http.target" || key == "http.path" }

// labels shows labels, those with the first keys if there are too many.
func (v view) labels(all map[string]string) map[string]string {
	keys := slices.Sorted(maps.Keys(all))
	keys = keys[:min(len(keys), maxShownLabels)]
	out := make(map[string]string, len(keys))
	for _, key := range keys {
		value := all[key]
		if name, ok := strings.CutPrefix(key, headerLabel); ok {
			value = showHeader(name, value)
		} else if isPath(key) {
			value = showPath(value)
		}
		out[cutText(key, maxShownKey)] = cutText(value, maxShownValue)
	}
	return out
}

// request shows a request in the layout that Rego modules see as input; nil when there is none.
func (v view) request(r *classify.Request) *structpb.Struct {
	if r == nil {
		return nil
	}
	headers := make(map[string]any, len(r.Headers))
	names := slices.Sorted(maps.Keys(r.Headers))
	for _, name := range names[:min(len(names), maxShownLabels)] {
		headers[cutText(name, maxShownKey)] = cutText(showHeader(name, r.Headers[name]), maxShownValue)
	}
	body := cutText(r.Body, maxShownBody)
	if !v.bodies && body != "" {
		body = hidden(r.Body)
	}
	path := cutText(showPath(r.Path), maxShownValue)
	plain, query, _ := strings.Cut(path, "?")
	parsed := map[string]any{}
	if values, err := url.ParseQuery(query); err == nil {
		for name, list := range values {
			parsed[cutText(name, maxShownKey)] = anyTexts(list)
		}
	}
	out, err := structpb.NewStruct(map[string]any{
		"attributes": map[string]any{
			"request": map[string]any{"http": map[string]any{
				"id": cutText(r.ID, maxShownKey), "method": cutText(r.Method, maxShownKey), "path": path, "host": cutText(r.Host, maxShownKey),
				"scheme": cutText(r.Scheme, maxShownKey), "protocol": cutText(r.Protocol, maxShownKey), "size": float64(r.Size),
				"body": body, "headers": headers,
			}},
			"source":      showAddress(r.Source, r.SourceServices, "source_fqdns"),
			"destination": showAddress(r.Destination, r.DestinationServices, "destination_fqdns"),
		},
		"parsed_path":  anyTexts(strings.Split(strings.Trim(plain, "/"), "/")),
		"parsed_query": parsed,
	})
	if err != nil {
		return nil // it is all texts, numbers, maps and lists
	}
	return out
}

func showAddress(a classify.Address, services []string, key string) map[string]any {
	out := map[string]any{"socketAddress": map[string]any{"address": cutText(a.Text, maxShownKey), "port": float64(a.Port)}}
	if len(services) > 0 {
		out[key] = anyTexts(services)
	}
	return out
}

func anyTexts(list []string) []any {
	out := make([]any, min(len(list), maxShownLabels))
	for i := range out {
		out[i] = cutText(list[i], maxShownValue)
	}
	return out
}

// cutText makes a text valid UTF-8 of at most so many bytes; an ellipsis says that it was longer.
func cutText(s string, most int) string {
	if len(s) > most {
		end := most - len("…")
		for end > 0 && end > most-len("…")-utf8.UTFMax && !utf8.RuneStart(s[end]) {
			end--
		}
		s = s[:end] + "…"
	}
	return printableText(s)
}

func hidden(value string) string { return fmt.Sprintf("(hidden, %d bytes)", len(value)) }

func showHeader(name, value string) string {
	if secretName(name) {
		return hidden(value)
	}
	if name == "referer" {
		return showPath(value)
	}
	return value
}

// showPath hides the secrets in the query of a path.
func showPath(path string) string {
	at := strings.IndexByte(path, '?')
	if at < 0 {
		return path
	}
	query := path[at+1:]
	parts := strings.FieldsFunc(query, func(r rune) bool { return r == '&' || r == ';' })
	changed := false
	for i, p := range parts {
		name, value, _ := strings.Cut(p, "=")
		if plain, err := url.QueryUnescape(name); value != "" && (err != nil || secretName(plain)) {
			parts[i], changed = name+"=(hidden)", true
		}
	}
	if !changed {
		return path
	}
	return path[:at+1] + strings.Join(parts, "&")
}

// secretWords are words in the names of what is nobody's business. Their plurals are not: "tokens" is a cost.
var secretWords = map[string]bool{
	"authorization": true, "auth": true, "bearer": true, "cookie": true, "credential": true, "credentials": true, "jwt": true,
	"passwd": true, "password": true, "pwd": true, "secret": true, "session": true, "sessionid": true, "sid": true, "sig": true,
	"signature": true, "token": true, "apikey": true, "key": true,
}

// secretName tells whether a name, such as x-api-key or accessToken, is that of a secret.
func secretName(name string) bool {
	if name == "code" { // of OAuth
		return true
	}
	word := make([]byte, 0, 32)
	for i := 0; i <= len(name); i++ {
		letter := i < len(name) && (name[i]|0x20 >= 'a' && name[i]|0x20 <= 'z' || name[i] >= '0' && name[i] <= '9')
		hump := letter && i > 0 && name[i] <= 'Z' && name[i] >= 'A' && name[i-1] >= 'a'
		if (!letter || hump) && len(word) > 0 {
			if secretWords[string(word)] {
				return true
			}
			word = word[:0]
		}
		if letter && len(word) < cap(word) {
			word = append(word, name[i]|0x20)
		}
	}
	return false
}
