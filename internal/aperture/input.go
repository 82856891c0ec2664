// SPDX-License-Identifier: Apache-2.0

package aperture

import (
	"net/url"
	"strings"

	"github.com/sluice-project/sluice/internal/classify"
)

// requestInput is a request as previews show it: the attributes that classifiers see, and its path and query taken
// apart. Bodies are shown as they came.
func requestInput(r *classify.Request) map[string]any {
	headers := make(map[string]any, len(r.Headers))
	for name, value := range r.Headers {
		headers[text(name)] = text(value)
	}
	path, query, _ := strings.Cut(r.Path, "?")
	var segments []any
	for s := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
		segments = append(segments, text(s))
	}
	params := map[string]any{}
	if values, err := url.ParseQuery(query); err == nil {
		for name, list := range values {
			params[text(name)] = anyList(list)
		}
	}
	return map[string]any{
		"attributes": map[string]any{
			"request": map[string]any{"http": map[string]any{
				"method": text(r.Method), "path": text(r.Path), "host": text(r.Host), "scheme": text(r.Scheme),
				"protocol": text(r.Protocol), "size": float64(r.Size), "body": text(r.Body), "headers": headers,
			}},
			"source":      end(r.Source, r.SourceServices, "source_fqdns"),
			"destination": end(r.Destination, r.DestinationServices, "destination_fqdns"),
		},
		"parsed_path":  segments,
		"parsed_query": params,
	}
}

// end is one end of the connection.
func end(a classify.Address, services []string, key string) map[string]any {
	out := map[string]any{
		"socketAddress": map[string]any{"address": text(a.Text), "port": float64(a.Port)},
	}
	if len(services) > 0 {
		out[key] = anyList(services)
	}
	return out
}

func anyList(list []string) []any {
	out := make([]any, len(list))
	for i, s := range list {
		out[i] = text(s)
	}
	return out
}
