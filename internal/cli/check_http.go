// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"os"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/spf13/pflag"

	flowv1 "github.com/sluice-project/sluice/api/gen/sluice/flow/v1"
)

// httpFlags describe an HTTP request, much as those of curl do.
type httpFlags struct {
	line    string
	headers []string
	body    string
}

func (f *httpFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.line, "http", "", "check an HTTP request: its method and path or address, such as 'POST /graphql'")
	flags.StringArrayVarP(&f.headers, "header", "H", nil, "header of the HTTP request as 'name: value'; may be repeated")
	flags.StringVar(&f.body, "body", "", "body of the HTTP request; @FILE reads a file, @- standard input")
}

// maxBodySent is below what one message may have.
const maxBodySent = 3 << 20

// request is what the flags describe; nil: no HTTP request.
func (f *httpFlags) request(env Env) (*flowv1.HTTPAttributes, error) {
	if f.line == "" {
		if len(f.headers) > 0 || f.body != "" {
			return nil, errors.New("--header and --body: got no --http, want the method and the path of the request there, such as --http 'POST /graphql'")
		}
		return nil, nil
	}
	method, target, ok := strings.Cut(strings.TrimSpace(f.line), " ")
	if !ok {
		method, target = "GET", method
	}
	u, err := url.Parse(strings.TrimSpace(target))
	if err != nil || u.Path == "" || u.Path[0] != '/' {
		return nil, fmt.Errorf("--http: got %q, want a method and a path or address, such as 'POST /graphql' or 'GET http://shop.example/cart?id=7'", f.line)
	}
	out := &flowv1.HTTPAttributes{
		Method: strings.ToUpper(method), Path: u.RequestURI(), Host: u.Host, Scheme: u.Scheme, Protocol: "HTTP/1.1",
		Headers: make(map[string]string, len(f.headers)),
	}
	for _, h := range f.headers {
		name, value, ok := strings.Cut(h, ":")
		if name = strings.ToLower(strings.TrimSpace(name)); !ok || name == "" || !utf8.ValidString(h) {
			return nil, fmt.Errorf("--header: got %q, want 'name: value'", h)
		}
		if before, twice := out.Headers[name]; twice {
			value = before + ", " + strings.TrimSpace(value)
		}
		out.Headers[name] = strings.TrimSpace(value)
	}
	if host := out.Headers["host"]; host != "" {
		out.Host = host
	}
	if out.Body, err = readBody(env, f.body); err != nil {
		return nil, fmt.Errorf("--body: %w", err)
	}
	size := int64(len(out.Body))
	out.Size = &size
	return out, nil
}

func readBody(env Env, from string) ([]byte, error) {
	path, isFile := strings.CutPrefix(from, "@")
	if !isFile {
		return []byte(from), nil
	}
	in := env.Stdin
	if path != "-" {
		file, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer func() { _ = file.Close() }() // it was only read
		in = file
	}
	body, err := io.ReadAll(io.LimitReader(in, maxBodySent+1))
	if err == nil && len(body) > maxBodySent {
		err = fmt.Errorf("%s has more than %d bytes, which is the most that can be sent", path, maxBodySent)
	}
	return body, err
}

// writePairs prints a line for each pair, by name.
func writePairs(w io.Writer, what, between string, pairs map[string]string) {
	for _, name := range slices.Sorted(maps.Keys(pairs)) {
		fmt.Fprintf(w, "  %s %s%s%s\n", what, clean(name), between, clean(pairs[name]))
	}
}
