// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"context"
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

// labels shows labels, those with the first keys if there are too many.
func (v view) labels(all map[string]string) map[string]string {
	keys := slices.Sorted(maps.Keys(all))
	keys = keys[:min(len(keys), maxShownLabels)]
	out := make(map[string]string, len(keys))
	for _, key := range keys {
		out[cutText(key, maxShownKey)] = cutText(classify.ShowLabel(key, all[key]), maxShownValue)
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
		headers[cutText(name, maxShownKey)] = cutText(classify.ShowHeader(name, r.Headers[name]), maxShownValue)
	}
	body := cutText(r.Body, maxShownBody)
	if !v.bodies && body != "" {
		body = classify.Hidden(r.Body)
	}
	path := cutText(classify.ShowPath(r.Path), maxShownValue)
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
	return validText(s)
}
