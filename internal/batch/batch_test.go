// SPDX-License-Identifier: Apache-2.0

package batch

import (
	"bytes"
	"compress/gzip"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

func TestCheck(t *testing.T) {
	empty := func(n int) []byte { return bytes.Repeat([]byte{0x0a, 0}, n) }
	nested := func(levels int) (b []byte) {
		for range levels {
			b = protowire.AppendBytes([]byte{0x0a}, b)
		}
		return b
	}
	for name, tt := range map[string]struct {
		message []byte
		want    string
	}{
		"as many as allowed":     {empty(10), ""},
		"one more":               {empty(11), "more than 10 parts"},
		"in one part":            {protowire.AppendBytes([]byte{0x0a}, empty(10)), "more than 10 parts"},
		"no message":             {[]byte("\xff\xff\xff"), ""},
		"levels":                 {nested(MaxLevels + 2), "more than 10 parts"},
		"numbers":                {bytes.Repeat([]byte{0x08, 1}, 10), ""},
		"numbers, one more":      {bytes.Repeat([]byte{0x08, 1}, 11), "more than 10 parts"},
		"text that is no part":   {protowire.AppendString([]byte{0x0a}, "hello"), ""},
		"a number without value": {[]byte{0x08}, ""},
	} {
		if err := Check(tt.message, 10); (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", name, err, tt.want)
		}
	}
	if err := Check(nested(MaxLevels+2), 1000); err == nil || !strings.Contains(err.Error(), "levels") {
		t.Errorf("got %v, want an error about levels", err)
	}
	if err := Check(nested(MaxLevels), 1000); err != nil {
		t.Errorf("got %v for as many levels as allowed", err)
	}
}

func TestCheckJSON(t *testing.T) {
	for text, good := range map[string]bool{
		"{" + strings.Repeat("{},", 9): true, strings.Repeat("{", 11): false,
		strings.Repeat(",", 40): true, strings.Repeat(",", 41): false,
	} {
		if err := CheckJSON([]byte(text), 10); (err == nil) != good {
			t.Errorf("%.20s: got %v", text, err)
		}
	}
}

func FuzzCheck(f *testing.F) {
	f.Add([]byte{0x0a, 0})
	f.Fuzz(func(_ *testing.T, message []byte) { _ = Check(message, 100) })
}

func TestReadAndRefuse(t *testing.T) {
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	if _, err := z.Write(bytes.Repeat([]byte("a"), 300)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	sizes := Sizes{Sent: 100, Text: 200}
	for name, tt := range map[string]struct {
		body, encoding string
		code           int
	}{
		"small":              {"hello", "", 0},
		"too long":           {strings.Repeat("a", 101), "", http.StatusRequestEntityTooLarge},
		"too long unzipped":  {zipped.String(), "gzip", http.StatusRequestEntityTooLarge},
		"no gzip":            {"hello", "gzip", http.StatusBadRequest},
		"half a gzip":        {zipped.String()[:11], "gzip", http.StatusBadRequest},
		"another encoding":   {"hello", "br", http.StatusUnsupportedMediaType},
		"said to be what is": {"hello", "identity", 0},
	} {
		r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(tt.body))
		r.Header.Set("Content-Encoding", tt.encoding)
		body, code, err := sizes.Read(httptest.NewRecorder(), r)
		if code != tt.code || (err == nil) != (tt.code == 0) || tt.code == 0 && string(body) != tt.body {
			t.Errorf("%s: got %q %d %v, want %d", name, body, code, err, tt.code)
		}
	}
	for encoding, want := range map[string]string{JSON: `{"message":"no"}`, Protobuf: "\x12\x02no"} {
		w := httptest.NewRecorder()
		Refuse(w, encoding, 400, "no")
		if w.Body.String() != want || w.Code != 400 || w.Header().Get("Content-Type") != encoding {
			t.Errorf("%s: got %d %q", encoding, w.Code, w.Body)
		}
	}
}
