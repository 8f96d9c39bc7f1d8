select id, v from {{ source('app', 'parts') }} where part = 9
