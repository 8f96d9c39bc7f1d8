#include "postgres.h"
#include "map/mapping.h"
#include "map/sqlexpr.h"
#include "utils/timestamp.h"
#define W __attribute__((weak))
struct RetlMapping {int n;};
W int retl_mapping_batch_bytes(const RetlMapping *m){return 0;}
W int retl_mapping_batch_records(const RetlMapping *m){return m->n;}
W void retl_mapping_body_begin(const RetlMapping *m, StringInfo b){appendStringInfoChar(b,'[');}
W void retl_mapping_body_add(const RetlMapping *m, StringInfo b,const char*r,int l,bool f){if(!f)appendStringInfoChar(b,',');appendBinaryStringInfo(b,r,l);}
W void retl_mapping_body_end(const RetlMapping *m, StringInfo b){appendStringInfoChar(b,']');}
W RetlMapping *retl_mapping_compile(const char*c,const char*a,const char*f,const char*s,int b){RetlMapping*m=palloc(sizeof(*m));m->n=b?b:1;return m;}
W bool retl_mapping_payload(RetlMapping*m,const RetlEnvelope*e,StringInfo p,char**err){retl_row_append_object(p,e->shape,e->row);return true;}
W bool retl_mapping_comparable(RetlMapping*m,const RetlEnvelope*e,StringInfo p,char**err){retl_row_append_object(p,e->shape,e->row);return true;}
W bool retl_mapping_record(RetlMapping*m,const RetlEnvelope*e,const char*p,int pl,StringInfo g,StringInfo r,char**err){appendStringInfoString(g,"{}");appendBinaryStringInfo(r,p,pl);return true;}
W const char* retl_mapping_sql(const RetlMapping*m,int n){return "";}
W int retl_mapping_sql_count(const RetlMapping*m){return 0;}
W const char* retl_operation_name(RetlOperation o){return o==0?"added":o==1?"updated":"deleted";}
W bool retl_sql_eval(RetlSqlSet*s,const RetlEnvelope*e,RetlSlice*v,char**err){return true;}
W void retl_sql_free(RetlSqlSet*s){}
W RetlSqlSet* retl_sql_prepare(const RetlShape*s,int c,const char*const*e,Oid o,const char*p){return NULL;}
extern TimestampTz retl_delivery_main_loop(void);
W TimestampTz retl_delivery_main_loop(void){return DT_NOEND;}
