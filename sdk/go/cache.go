// SPDX-License-Identifier: Apache-2.0

package sluice

import (
	"context"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	cachev1 "github.com/sluice-project/sluice/api/gen/sluice/cache/v1"
	flowv1 "github.com/sluice-project/sluice/api/gen/sluice/flow/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

// cacheTimeout bounds a call to the caches whose context has no deadline: a cache that takes longer is of no use.
const cacheTimeout = 5 * time.Second

// Coalesce says how flows that miss the same result share the work.
type Coalesce uint8

const (
	// CoalesceWait lets one flow compute the result; the others wait for it, as long as they may wait in queues.
	CoalesceWait Coalesce = iota + 1
	// CoalesceStale lets one flow compute the result; the others get the one that expired last, if the server
	// still has it, and wait otherwise.
	CoalesceStale
)

// WithResultKey looks for the result of the flow in the result cache of its control point: in the same call, after
// what limits rate and concurrency and before what makes it wait for a quota or for load. If it is there, the flow
// runs without asking those. See Flow.CachedResult and Flow.SetResult. The key has 1 to 1,024 bytes of UTF-8.
func WithResultKey(key string) FlowOption {
	return func(o flowOptions) flowOptions {
		o.resultKey, o.cached = key, true
		return o
	}
}

// WithGlobalKeys looks for values that control points share, 64 at most, in the same call. See Flow.CachedGlobal.
func WithGlobalKeys(keys ...string) FlowOption {
	return func(o flowOptions) flowOptions {
		o.globalKeys, o.cached = keys, true
		return o
	}
}

// WithCoalesce shares the work of computing a result that is missing: one flow is chosen (Flow.Leads) and should
// store it with SetResult, then End. If it ends without, the next flow that waits is chosen, and only one. A flow
// that has waited as long as it may goes on without the result. Flows that wait hold their slots in flight. It has
// no effect without WithResultKey.
func WithCoalesce(how Coalesce) FlowOption {
	return func(o flowOptions) flowOptions {
		o.coalesce = how
		return o
	}
}

// CachedValue is what the caches hold under a key. The zero value says that they hold nothing.
type CachedValue struct {
	// Found says that Value can be used.
	Found bool
	// Stale says that Value has expired, and that another flow computes it anew; only with CoalesceStale.
	Stale bool
	// Value must not be changed.
	Value []byte
	// Err says why nothing was found, if the key makes no sense or the caches could not be asked.
	Err error
}

// flowCache is what the caches answered a flow.
type flowCache struct {
	resultKey string
	tenant    string
	leads     bool
	result    CachedValue
	global    map[string]CachedValue
}

var (
	errKeyNotUTF8 = errors.New("sluice: cache key is not UTF-8")
	errNotAsked   = errors.New("sluice: the flow did not ask the caches: start it WithResultKey or WithGlobalKeys")
	errNoResult   = errors.New("sluice: the flow has no result key: start it WithResultKey")
	errNotRunning = errors.New("sluice: a flow that was denied has no results")
)

// CachedResult is what the cache held under the key of WithResultKey. Without the server nothing is found.
func (f *Flow) CachedResult() CachedValue {
	if f.cache == nil {
		return CachedValue{Err: f.err}
	}
	return f.cache.result
}

// CachedGlobal is what the cache held under one of the keys of WithGlobalKeys. Without the server nothing is found.
func (f *Flow) CachedGlobal(key string) CachedValue {
	if f.cache == nil {
		return CachedValue{Err: f.err}
	}
	return f.cache.global[key]
}

// Leads says that the flow was chosen to compute a result which other flows wait for.
func (f *Flow) Leads() bool { return f.cache != nil && f.cache.leads }

// SetResult stores the result of the flow under the key of WithResultKey, for ttl, which must be more than zero; 7
// days are the most. Flows that wait for it go on. Call it before End. An error says why it was not stored, which
// is no reason to fail the work; it wraps ErrUnavailable when the server could not be asked, or was not asked about
// the flow.
func (f *Flow) SetResult(ctx context.Context, value []byte, ttl time.Duration) error {
	c, err := f.ownCache()
	if err == nil && f.cache.resultKey == "" {
		err = errNoResult
	}
	if err != nil {
		return err
	}
	return c.SetResult(ctx, f.controlPoint, f.cache.resultKey, value, ttl)
}

// DeleteResult forgets the result under the key of WithResultKey.
func (f *Flow) DeleteResult(ctx context.Context) error {
	c, err := f.ownCache()
	if err == nil && f.cache.resultKey == "" {
		err = errNoResult
	}
	if err != nil {
		return err
	}
	return c.DeleteResult(ctx, f.controlPoint, f.cache.resultKey)
}

// SetGlobal stores a value that control points share, as SetResult does. The flow needs WithResultKey or
// WithGlobalKeys, but not this key.
func (f *Flow) SetGlobal(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	c, err := f.ownCache()
	if err != nil {
		return err
	}
	return c.SetGlobal(ctx, key, value, ttl)
}

// DeleteGlobal forgets a value that control points share.
func (f *Flow) DeleteGlobal(ctx context.Context, key string) error {
	c, err := f.ownCache()
	if err != nil {
		return err
	}
	return c.DeleteGlobal(ctx, key)
}

// ownCache returns the caches of the flow's tenant, which only the server knows.
func (f *Flow) ownCache() (Cache, error) {
	switch {
	case f.cache != nil:
		return f.client.Cache(f.cache.tenant), nil
	case f.err != nil:
		return Cache{}, f.err
	case !f.admitted:
		return Cache{}, errNotRunning
	}
	return Cache{}, errNotAsked
}

// Cache is the result cache and the global cache as one tenant sees them, for programs that use them without a
// flow, for example to forget what has changed. All methods may be called concurrently. Their errors wrap
// ErrUnavailable when the server could not be asked; none waits for it longer than flows do.
type Cache struct {
	client *Client
	tenant string
}

// Cache returns the caches of a tenant; the empty one is right unless the server is configured with a tenant label.
func (c *Client) Cache(tenant string) Cache { return Cache{c, tenant} }

// Result reads the result of a control point.
func (c Cache) Result(ctx context.Context, controlPoint, key string) CachedValue {
	out, err := c.lookup(ctx, &cachev1.LookupRequest{ControlPoint: controlPoint, ResultKey: key, Tenant: c.tenant})
	if err != nil {
		return CachedValue{Err: err}
	}
	return toCachedValue(out.Result)
}

// Global reads a value that control points share.
func (c Cache) Global(ctx context.Context, key string) CachedValue {
	out, err := c.lookup(ctx, &cachev1.LookupRequest{GlobalKeys: []string{key}, Tenant: c.tenant})
	if err != nil {
		return CachedValue{Err: err}
	}
	return toCachedValue(out.Global[key])
}

// SetResult stores the result of a control point; see Flow.SetResult.
func (c Cache) SetResult(ctx context.Context, controlPoint, key string, value []byte, ttl time.Duration) error {
	out, err := c.upsert(ctx, &cachev1.UpsertRequest{
		ControlPoint: controlPoint, ResultKey: key, Result: entry(value, ttl), Tenant: c.tenant,
	})
	return firstError(err, out.GetResultError())
}

// SetGlobal stores a value that control points share; see Flow.SetResult.
func (c Cache) SetGlobal(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	out, err := c.upsert(ctx, &cachev1.UpsertRequest{
		Global: map[string]*cachev1.Entry{key: entry(value, ttl)}, Tenant: c.tenant,
	})
	return firstError(err, out.GetGlobalErrors()[key])
}

// DeleteResult forgets the result of a control point. One that is computed at the moment will still be stored.
func (c Cache) DeleteResult(ctx context.Context, controlPoint, key string) error {
	return c.remove(ctx, &cachev1.DeleteRequest{ControlPoint: controlPoint, ResultKey: key, Tenant: c.tenant})
}

// DeleteGlobal forgets a value that control points share.
func (c Cache) DeleteGlobal(ctx context.Context, key string) error {
	return c.remove(ctx, &cachev1.DeleteRequest{GlobalKeys: []string{key}, Tenant: c.tenant})
}

func entry(value []byte, ttl time.Duration) *cachev1.Entry {
	return &cachev1.Entry{Value: value, Ttl: durationpb.New(ttl)}
}

func firstError(err error, text string) error {
	if err == nil && text != "" {
		err = errors.New("sluice: " + text)
	}
	return err
}

func (c Cache) lookup(ctx context.Context, in *cachev1.LookupRequest) (out *cachev1.LookupResponse, err error) {
	err = c.call(ctx, func(ctx context.Context) (err error) {
		out, err = c.client.caches.Lookup(ctx, in, callOptions...)
		return err
	})
	return out, err
}

func (c Cache) upsert(ctx context.Context, in *cachev1.UpsertRequest) (out *cachev1.UpsertResponse, err error) {
	err = c.call(ctx, func(ctx context.Context) (err error) {
		out, err = c.client.caches.Upsert(ctx, in, callOptions...)
		return err
	})
	return out, err
}

func (c Cache) remove(ctx context.Context, in *cachev1.DeleteRequest) error {
	return c.call(ctx, func(ctx context.Context) error {
		_, err := c.client.caches.Delete(ctx, in, callOptions...)
		return err
	})
}

// call makes one call within cacheTimeout, if the server can be reached.
func (c Cache) call(ctx context.Context, do func(context.Context) error) error {
	if c.client == nil {
		return fmt.Errorf("%w: the client is nil", ErrUnavailable)
	}
	if ctx == nil {
		ctx = context.Background()
	}
	// The caller's outgoing metadata is meant for its own servers.
	caller := ctx
	ctx, cancel := context.WithTimeout(metadata.NewOutgoingContext(ctx, nil), cacheTimeout)
	defer cancel()
	defer context.AfterFunc(c.client.asking, cancel)()
	if err := c.client.awaitLink(ctx); err != nil {
		return err
	}
	err := do(ctx)
	if caller.Err() != nil && err != nil {
		return fmt.Errorf("sluice: %w", caller.Err())
	}
	switch status.Code(err) {
	case codes.OK:
		return nil
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled, codes.Unimplemented, codes.Internal, codes.Unknown:
		return fmt.Errorf("%w: %s: %w", ErrUnavailable, c.client.addr, err)
	}
	return fmt.Errorf("sluice: %w", err)
}

// cacheLookup is what a flow asks of the caches. Keys that no server could read are left out.
func (o flowOptions) cacheLookup() *flowv1.CacheLookup {
	if !o.cached {
		return nil
	}
	in := &flowv1.CacheLookup{}
	if utf8.ValidString(o.resultKey) {
		in.ResultKey = o.resultKey
	}
	for _, key := range o.globalKeys {
		if utf8.ValidString(key) {
			in.GlobalKeys = append(in.GlobalKeys, key)
		}
	}
	switch o.coalesce {
	case CoalesceWait:
		in.Coalesce = flowv1.Coalesce_COALESCE_WAIT
	case CoalesceStale:
		in.Coalesce = flowv1.Coalesce_COALESCE_STALE
	}
	return in
}

// answerCache takes what the caches answered a flow that was admitted. A server that does not know caches answers
// nothing.
func (f *Flow) answerCache(in *flowv1.CacheResult, o flowOptions) {
	if !o.cached || in == nil || !f.admitted {
		return
	}
	c := &flowCache{tenant: in.Tenant, leads: in.Leader, resultKey: o.resultKey}
	c.result = toCachedValue(in.Result)
	if !utf8.ValidString(o.resultKey) {
		c.resultKey, c.result.Err = "", errKeyNotUTF8
	}
	c.global = make(map[string]CachedValue, len(o.globalKeys))
	for _, key := range o.globalKeys {
		if utf8.ValidString(key) {
			c.global[key] = toCachedValue(in.Global[key])
		} else {
			c.global[key] = CachedValue{Err: errKeyNotUTF8}
		}
	}
	f.cache = c
}

func toCachedValue(in *flowv1.CacheValue) CachedValue {
	switch in.GetStatus() {
	case "hit":
		return CachedValue{Found: true, Value: in.Value}
	case "stale":
		return CachedValue{Found: true, Stale: true, Value: in.Value}
	case "error":
		return CachedValue{Err: errors.New("sluice: " + in.Error)}
	}
	return CachedValue{}
}
