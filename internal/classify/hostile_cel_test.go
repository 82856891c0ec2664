// SPDX-License-Identifier: Apache-2.0

package classify_test

import (
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/sluice-project/sluice/internal/classify"
)

// TestHostileCEL: functions that would take minutes or gigabytes for what a request may carry are not begun.
func TestHostileCEL(t *testing.T) {
	body := strings.Repeat("a", 1<<20)
	r := &classify.Request{Body: body, Headers: map[string]string{"pattern": "(.{1,1000}q)$"}}
	for _, text := range []string{
		`string(request.body.matches("(.{1,1000}q)$"))`,
		`string(matches(request.body, "(.{1,1000}q)$"))`,
		`string(request.body.matches(request.headers["pattern"]))`,
		`request.body.replace("a", request.body)`,
		`request.body.replace("", request.body, 1000)`,
		`["a", "b", "c"].map(x, x).join(request.body)`,
	} {
		start := time.Now()
		err := evalCEL(t, text, r)
		var problem *classify.Error
		if !errors.As(err, &problem) || problem.Code != classify.CodeBounds {
			t.Errorf("%s: got %v, want bounds", text, err)
		}
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("%s: took %s", text, took)
		}
	}
	for _, text := range []string{
		`request.body.substring(0, 1000).replace("a", "bb")`, `["a", "b"].map(x, x).join("-")`, `["a", "b"].join()`,
		`request.body.replace("a", "b")`, `request.body.replace("a", "bbb", 2)`,
		`string("aaaa".matches(request.headers["pattern"]))`, `string(request.headers["pattern"].matches("q.?$"))`,
		`"%.3f %s".format([1.5, "x"])`,
	} {
		if err := evalCEL(t, text, r); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
	for _, text := range []string{`request.body.format([1])`, `"%.999999f".format([1.5])`} {
		spec := classify.Spec{Rules: []classify.Rule{{Label: "x", Extractor: classify.Extractor{CEL: text}}}}
		if _, err := classify.Compile(spec); err == nil {
			t.Errorf("%s compiles", text)
		}
	}
}

func evalCEL(t *testing.T, text string, r *classify.Request) error {
	t.Helper()
	set, err := classify.Compile(classify.Spec{Rules: []classify.Rule{{Label: "x", Extractor: classify.Extractor{CEL: text}}}})
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	_, err = set.Eval(&classify.Input{Request: r}, nil)
	return err
}

// TestValuesAreText: whatever bytes a body has, the values of labels are UTF-8 and no longer than they may be.
func TestValuesAreText(t *testing.T) {
	for name, e := range map[string]classify.Extractor{
		"from": {From: "request.http.body"}, "json": {JSON: &classify.JSON{From: "request.http.body"}}, "cel": {CEL: "request.body"},
	} {
		set, err := classify.Compile(classify.Spec{
			Rules: []classify.Rule{{Label: "x", Extractor: e}}, Bounds: classify.Bounds{MaxValueBytes: 10},
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, body := range []string{"[\"\xff\"]", "[\"\xff\xfe\", \"\x80\x80\x80\x80\x80\x80\x80\x80\x80\"]", "[\"ab\xe2\x82\"]"} {
			labels, err := set.Eval(&classify.Input{Request: &classify.Request{Body: body}}, nil)
			if err != nil || len(labels) != 1 || !utf8.ValidString(labels[0].Value) || len(labels[0].Value) > 10 {
				t.Errorf("%s of %q: got %+v, %v", name, body, labels, err)
			}
		}
	}
}
