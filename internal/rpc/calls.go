// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"slices"
	"strings"

	"github.com/sluice-project/sluice/internal/fielderr"
)

// explainCalls answers calls of our API that no handler could make sense of, with what is wrong. Those of connect
// answer them with nothing but a status, and whoever tries with curl sees an empty line.
func explainCalls(next http.Handler) http.Handler {
	var methods []string
	for m := range permissions {
		if strings.HasPrefix(m, "/sluice.") {
			methods = append(methods, m)
		}
	}
	slices.Sort(methods)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, "/sluice.") {
			next.ServeHTTP(w, r)
			return
		}
		_, known := permissions[r.URL.Path]
		kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")) // what cannot be read is none
		switch {
		case !known:
			hint := fielderr.DidYouMean(r.URL.Path, methods)
			if hint == "" {
				hint = "/openapi.json of this server has the methods"
			}
			callError(w, http.StatusNotFound, "unimplemented", fmt.Sprintf("there is no method %q; %s", r.URL.Path, hint))
		case r.Method != http.MethodPost:
			w.Header().Set("Allow", http.MethodPost)
			callError(w, http.StatusMethodNotAllowed, "unimplemented", fmt.Sprintf("methods are called with POST, not with %s", r.Method))
		case !carriesCalls(kind):
			w.Header().Set("Accept-Post", "application/json, application/proto, application/connect+json, application/connect+proto, "+
				"application/grpc, application/grpc-web")
			callError(w, http.StatusUnsupportedMediaType, "unknown", `send the header "Content-Type: application/json"`)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// carriesCalls tells whether bodies of that type may be calls.
func carriesCalls(kind string) bool {
	return kind == "application/json" || kind == "application/proto" ||
		strings.HasPrefix(kind, "application/connect+") || strings.HasPrefix(kind, "application/grpc")
}

// callError answers in the form of errors of connect, which its clients read.
func callError(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"code": code, "message": message}) // the client has gone
}
