// SPDX-License-Identifier: Apache-2.0

package rego

import (
	"encoding/json"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/url"
	"strconv"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/util"

	"github.com/sluice-project/sluice/internal/classify"
)

// needs are parts of input that a module reads. The others are not made for it.
type needs uint8

const (
	needHTTP    needs = 1 << iota // attributes.request.http, apart from:
	needHeaders                   // headers
	needRaw                       // body
	needEnds                      // attributes.source, .destination and .metadataContext
	needPath                      // parsed_path and parsed_query
	needBody                      // parsed_body and truncated_body

	needAttributes = needHTTP | needHeaders | needRaw | needEnds
	needAll        = needAttributes | needPath | needBody
)

// needsOf finds what a module reads: everything, when it uses input other than by constant names.
func needsOf(m *ast.Module) needs {
	var found needs
	refs, vars := 0, 0
	ast.WalkRefs(m, func(ref ast.Ref) bool {
		if ref.HasPrefix(ast.InputRootRef) {
			refs++
			found |= needOf(ref[1:])
		}
		return false
	})
	ast.WalkVars(m, func(v ast.Var) bool {
		if v.Equal(ast.InputRootDocument.Value) {
			vars++
		}
		return false
	})
	if vars > refs { // input by itself somewhere, as an argument or in another name
		return needAll
	}
	return found
}

// needOf is what a path below input needs.
func needOf(path ast.Ref) needs {
	name := func(i int) string {
		if i >= len(path) {
			return ""
		}
		s, _ := path[i].Value.(ast.String)
		return string(s)
	}
	switch name(0) {
	case "parsed_path", "parsed_query":
		return needPath
	case "parsed_body", "truncated_body":
		return needBody
	case "attributes":
	default:
		return needAll
	}
	switch name(1) {
	case "source", "destination", "metadataContext":
		return needEnds
	case "request":
	default:
		return needAttributes
	}
	switch {
	case name(2) != "http" || name(3) == "":
		return needAttributes
	case name(3) == "headers":
		return needHeaders
	case name(3) == "body":
		return needRaw
	}
	return needHTTP
}

// shared are the parts of the input of one flow, made when the first module needs them.
type shared struct {
	made            needs
	attributes      *ast.Term
	path, query     *ast.Term // nil: the path cannot be read
	body, truncated *ast.Term // nil: the body cannot be read
	object          ast.Object
	objectHas       needs
}

// inputOf is the input of a module:
//
//	attributes.request.http.{method,path,host,scheme,protocol,size,body,headers{}}
//	attributes.source.{socketAddress.{address,port},source_fqdns[]}
//	attributes.destination.{socketAddress.{address,port},destination_fqdns[]}
//	attributes.metadataContext.filterMetadata   what proxies attach, if anything
//	parsed_path[]       the path without its query, split at '/'
//	parsed_query{}[]    its parameters
//	parsed_body         JSON, or {key: [values]} of a form; {} for other types; null when it is truncated or empty
//	truncated_body      true when the body is only a beginning
//
// Without parsed_* the path or the body cannot be read.
func inputOf(in *classify.Input, n needs, limit int) ast.Value {
	s := in.Shared(func(*classify.Input) any { return new(shared) }).(*shared)
	if s.object != nil && s.objectHas == n {
		return s.object
	}
	s.make(in.Request, n&^s.made, limit)
	if n&^s.made&needBody != 0 && s.body == nil {
		in.Note(classify.MalformedBody)
	}
	s.made |= n
	members := make([][2]*ast.Term, 0, 5)
	add := func(need needs, key, value *ast.Term) {
		if n&need != 0 && value != nil {
			members = append(members, [2]*ast.Term{key, value})
		}
	}
	add(needAttributes, termAttributes, s.attributes)
	add(needPath, termParsedPath, s.path)
	add(needPath, termParsedQuery, s.query)
	add(needBody, termParsedBody, s.body)
	add(needBody, termTruncatedBody, s.truncated)
	s.object, s.objectHas = ast.NewObject(members...), n
	return s.object
}

var (
	termAttributes    = ast.StringTerm("attributes")
	termParsedPath    = ast.StringTerm("parsed_path")
	termParsedQuery   = ast.StringTerm("parsed_query")
	termParsedBody    = ast.StringTerm("parsed_body")
	termTruncatedBody = ast.StringTerm("truncated_body")
)

func (s *shared) make(r *classify.Request, n needs, limit int) {
	if n&needAttributes != 0 {
		s.attributes = attributes(r, (n|s.made)&needAttributes, limit)
	}
	if n&needPath != 0 {
		s.path, s.query = pathAndQuery(r.Path)
	}
	if n&needBody != 0 {
		s.body, s.truncated = body(r, limit)
	}
}

var errNotJSON = errors.New("not JSON")

func member(key string, value *ast.Term) [2]*ast.Term {
	return [2]*ast.Term{ast.InternedTerm(key), value}
}

func number(text string) *ast.Term { return ast.NumberTerm(json.Number(text)) }

func object(members ...[2]*ast.Term) *ast.Term { return ast.NewTerm(ast.NewObject(members...)) }

// text is a string of a request: what is not UTF-8 becomes U+FFFD, for the library's sake.
func text(s string) *ast.Term { return ast.StringTerm(strings.ToValidUTF8(s, "\uFFFD")) }

func attributes(r *classify.Request, n needs, limit int) *ast.Term {
	members := make([][2]*ast.Term, 0, 4)
	if n&(needHTTP|needHeaders|needRaw) != 0 {
		members = append(members, member("request", object(member("http", http(r, n, limit)))))
	}
	if n&needEnds != 0 {
		members = append(members, member("source", end(r.Source, "source_fqdns", r.SourceServices)),
			member("destination", end(r.Destination, "destination_fqdns", r.DestinationServices)))
		if len(r.Metadata) > 0 {
			if value, err := ast.InterfaceToValue(r.Metadata); err == nil {
				members = append(members, member("metadataContext", object(member("filterMetadata", ast.NewTerm(value)))))
			}
		}
	}
	return object(members...)
}

func http(r *classify.Request, n needs, limit int) *ast.Term {
	members := make([][2]*ast.Term, 0, 8)
	if n&needHTTP != 0 {
		members = append(members,
			member("path", text(r.Path)), member("host", text(r.Host)), member("method", text(r.Method)), member("scheme", text(r.Scheme)),
			member("protocol", text(r.Protocol)), member("size", number(strconv.FormatInt(r.Size, 10))))
	}
	if n&needRaw != 0 {
		members = append(members, member("body", text(r.Body[:min(len(r.Body), limit)])))
	}
	if n&needHeaders != 0 {
		headers := make([][2]*ast.Term, 0, len(r.Headers))
		for name, value := range r.Headers {
			headers = append(headers, [2]*ast.Term{text(name), text(value)})
		}
		members = append(members, member("headers", object(headers...)))
	}
	return object(members...)
}

// end is one end of a connection; services only when discovery found some.
func end(a classify.Address, name string, services []string) *ast.Term {
	members := [][2]*ast.Term{member("socketAddress", object(
		member("address", text(a.Text)), member("port", number(strconv.FormatUint(uint64(a.Port), 10))),
	))}
	if len(services) > 0 {
		members = append(members, member(name, list(services)))
	}
	return object(members...)
}

func list(texts []string) *ast.Term {
	terms := make([]*ast.Term, len(texts))
	for i, s := range texts {
		terms[i] = text(s)
	}
	return ast.NewTerm(ast.NewArray(terms...))
}

// The bounds of what is taken apart. Longer paths are not, and longer forms count as truncated.
const (
	maxPathBytes  = 64 << 10
	maxParameters = 10_000
)

func pathAndQuery(path string) (segments, query *ast.Term) {
	if len(path) > maxPathBytes {
		return nil, nil
	}
	path, _, _ = strings.Cut(path, "#")
	path, raw, _ := strings.Cut(path, "?")
	path, err := url.PathUnescape(path)
	if err != nil {
		return nil, nil
	}
	values, _ := url.ParseQuery(raw) // what cannot be read is left out
	return list(strings.Split(strings.TrimLeft(path, "/"), "/")), parameters(values)
}

func parameters(values map[string][]string) *ast.Term {
	members := make([][2]*ast.Term, 0, len(values))
	for key, texts := range values {
		members = append(members, [2]*ast.Term{text(key), list(texts)})
	}
	return object(members...)
}

// body is parsed_body and truncated_body; nil when the body is not what its headers say.
func body(r *classify.Request, limit int) (parsed, truncated *ast.Term) {
	kind := r.Headers["content-type"]
	var parse func(kind, body string) (*ast.Term, bool, error)
	switch {
	case strings.Contains(kind, "application/json"):
		parse = parseJSON
	case strings.Contains(kind, "application/x-www-form-urlencoded"):
		parse = parseForm
	case strings.Contains(kind, "multipart/form-data"):
		parse = parseMultipart
	default:
		return object(), ast.InternedTerm(false)
	}
	if r.Body == "" {
		return ast.NullTerm(), ast.InternedTerm(false)
	}
	cut, err := r.Truncated(limit)
	if err != nil {
		return nil, nil
	}
	if !cut {
		if parsed, cut, err = parse(kind, r.Body); err != nil {
			return nil, nil
		}
	}
	if cut || parsed == nil {
		parsed = ast.NullTerm()
	}
	return parsed, ast.InternedTerm(cut)
}

func parseJSON(_, body string) (parsed *ast.Term, tooMuch bool, err error) {
	value, tooMuch, err := jsonValue(body)
	if err != nil || tooMuch {
		return nil, tooMuch, err
	}
	return ast.NewTerm(value), false, nil
}

func jsonValue(text string) (ast.Value, bool, error) {
	valid, tooMuch := classify.CheckJSON(text)
	if !valid {
		return nil, false, errNotJSON
	}
	if tooMuch {
		return nil, true, nil
	}
	var native any
	if err := util.UnmarshalJSON([]byte(strings.ToValidUTF8(text, "\uFFFD")), &native); err != nil {
		return nil, false, err
	}
	value, err := ast.InterfaceToValue(native)
	return value, false, err
}

func parseForm(_, body string) (parsed *ast.Term, tooMuch bool, err error) {
	if strings.Count(body, "&") >= maxParameters {
		return nil, true, nil
	}
	values, err := url.ParseQuery(body)
	if err != nil {
		return nil, false, err
	}
	return parameters(values), false, nil
}

// parseMultipart makes {name: [values]} of the parts that have a name; those that are JSON are parsed.
func parseMultipart(kind, body string) (parsed *ast.Term, tooMuch bool, err error) {
	_, parameters, err := mime.ParseMediaType(kind)
	if err != nil {
		return nil, false, err
	}
	boundary := parameters["boundary"]
	if boundary == "" {
		return nil, false, nil
	}
	parts := map[string][]*ast.Term{}
	reader := multipart.NewReader(strings.NewReader(body), boundary)
	for n := 0; ; n++ {
		part, err := reader.NextPart()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, false, err
		}
		if n >= maxParts {
			return nil, true, nil
		}
		if part.FormName() == "" {
			continue
		}
		value, tooMuch, err := partValue(part)
		if err != nil || tooMuch {
			return nil, tooMuch, err
		}
		parts[part.FormName()] = append(parts[part.FormName()], value)
	}
	members := make([][2]*ast.Term, 0, len(parts))
	for name, values := range parts {
		members = append(members, [2]*ast.Term{text(name), ast.NewTerm(ast.NewArray(values...))})
	}
	return object(members...), false, nil
}

// maxParts is how many parts of a form are read.
const maxParts = 1000

func partValue(part *multipart.Part) (value *ast.Term, tooMuch bool, err error) {
	content, err := io.ReadAll(part) // at most the body, which is in memory and bounded
	if err != nil {
		return nil, false, err
	}
	if strings.Contains(part.Header.Get("Content-Type"), "application/json") {
		return parseJSON("", string(content))
	}
	return text(string(content)), false, nil
}
