// SPDX-License-Identifier: Apache-2.0

package classify_test

import (
	"testing"

	"github.com/sluice-project/sluice/internal/classify"
)

func TestSmoke(t *testing.T) {
	req := &classify.Request{Method: "GET", Path: "/users/7?x=1", Headers: map[string]string{"x-user": "ann", "authorization": "Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIiwibmFtZSI6IkpvaG4gRG9lIiwiaWF0IjoxNTE2MjM5MDIyfQ.x"}, Body: `{"a":{"b":[1,2]}}`}
	set, err := classify.Compile(classify.Spec{Rules: []classify.Rule{
		{Label: "user", Extractor: classify.Extractor{From: "request.http.headers.x-user"}},
		{Label: "b", Extractor: classify.Extractor{JSON: &classify.JSON{From: "request.http.body", Pointer: "/a/b/1"}}},
		{Label: "all", Extractor: classify.Extractor{JSON: &classify.JSON{From: "request.http.body", Pointer: "/a"}}},
		{Label: "name", Extractor: classify.Extractor{JWT: &classify.JSON{From: "request.http.bearer", Pointer: "/name"}}},
		{Label: "route", Extractor: classify.Extractor{PathTemplates: map[string]string{"/users/{id}": "user"}}},
		{Label: "c", Extractor: classify.Extractor{CEL: `request.headers["x-user"] + string(request.json.a.b[0])`}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	out, err := set.Eval(&classify.Input{Request: req}, nil)
	t.Log(out, err)
}
